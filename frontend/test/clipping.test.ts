import { describe, expect, it } from "vitest";
import { clippingSeen, isClipping } from "../src/clipping";
import { SERIES } from "./examples";

function seriesOf(least: number | null, session = 0) {
  const ratio = { name: "clip_ratio", min: [1, least], max: [], mean: [], kinds: [0, 0] };
  return { ...SERIES, session, curves: [ratio] };
}

describe("isClipping", () => {
  it("is true if the ratio leaves 1 or is not finite, and false if there was no gradient", () => {
    const ratio = (min: ReadonlyArray<number | null>, kinds: ReadonlyArray<number>) => ({
      curves: [{ name: "clip_ratio", min, max: [], mean: [], kinds }],
    });
    expect(isClipping(ratio([1, 0.5], [0, 0]))).toBe(true);
    expect(isClipping(ratio([1, null], [0, 1]))).toBe(true);
    expect(isClipping(ratio([1, null], [0, 0]))).toBe(false);
  });
});

describe("clippingSeen", () => {
  it("stays true in steps without clipping, and starts again with another session or run", () => {
    const seen = clippingSeen(null, seriesOf(0.5));
    expect(seen.clips).toBe(true);
    expect(clippingSeen(seen, seriesOf(1)).clips).toBe(true);
    expect(clippingSeen(seen, seriesOf(1, 1)).clips).toBe(false);
    expect(clippingSeen(seen, { ...seriesOf(1), run: "tanh" }).clips).toBe(false);
  });

  it("is false if no ratio was recorded", () => {
    expect(clippingSeen(null, { ...SERIES, curves: [] }).clips).toBe(false);
  });
});
