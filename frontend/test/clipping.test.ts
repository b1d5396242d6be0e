import { describe, expect, it } from "vitest";
import { clippingSeen, clipsAnything, isTelling } from "../src/clipping";
import { SERIES } from "./examples";

function seriesOf(least: number | null, session = 0) {
  const ratio = { name: "clip_ratio", min: [1, least], max: [], mean: [], kinds: [0, 0] };
  return { ...SERIES, session, curves: [ratio] };
}

describe("clipsAnything", () => {
  it("is so where the ratio leaves 1 or is not finite, and not where there was no gradient", () => {
    expect(clipsAnything({ min: [1, 0.5], kinds: [0, 0] })).toBe(true);
    expect(clipsAnything({ min: [1, null], kinds: [0, 1] })).toBe(true);
    expect(clipsAnything({ min: [1, null], kinds: [0, 0] })).toBe(false);
  });
});

describe("clippingSeen", () => {
  it("is not undone by steps that were not clipped, but by another session or run", () => {
    const seen = clippingSeen(null, seriesOf(0.5));
    expect(seen.clips).toBe(true);
    expect(clippingSeen(seen, seriesOf(1)).clips).toBe(true);
    expect(clippingSeen(seen, seriesOf(1, 1)).clips).toBe(false);
    expect(clippingSeen(seen, { ...seriesOf(1), run: "tanh" }).clips).toBe(false);
  });

  it("is false where no ratio was recorded", () => {
    expect(clippingSeen(null, { ...SERIES, curves: [] }).clips).toBe(false);
  });
});

describe("isTelling", () => {
  it("spares only the statistics of clipping, and only where nothing is clipped", () => {
    const stats = ["grad_norm", "clipped_norm", "clip_ratio", "weight_norm"];
    expect(stats.filter((stat) => isTelling(stat, false))).toEqual(["grad_norm", "weight_norm"]);
    expect(stats.filter((stat) => isTelling(stat, true))).toEqual(stats);
  });
});
