import { describe, expect, it } from "vitest";
import { columnFigures, HEATMAP_STATS, isInformative } from "../src/heatmap_stats";

describe("columnFigures", () => {
  it("requests minimum and mean only for merged steps", () => {
    const kept = (first: number, last: number) =>
      columnFigures({ first, last }, true)
        .filter(({ stat }) => stat === "grad_norm")
        .map(({ keeps }) => keeps);
    expect(kept(5, 5)).toEqual(["max"]);
    expect(kept(0, 99)).toEqual(["max", "min", "mean"]);
  });

  it("leaves out clipping if nothing is clipped", () => {
    const stats = (clips: boolean) => columnFigures({ first: 5, last: 5 }, clips).map(({ stat }) => stat);
    expect(stats(false)).toEqual(["grad_norm", "weight_norm"]);
    expect(stats(true)).toEqual(["grad_norm", "clipped_norm", "clip_ratio", "weight_norm"]);
  });
});

describe("isInformative", () => {
  it("is false only for the statistics of clipping, and only if nothing is clipped", () => {
    const stats = HEATMAP_STATS.map(({ stat }) => stat);
    expect(stats).toEqual(["grad_norm", "clipped_norm", "clip_ratio", "weight_norm"]);
    expect(stats.filter((stat) => isInformative(stat, false))).toEqual(["grad_norm", "weight_norm"]);
    expect(stats.filter((stat) => isInformative(stat, true))).toEqual(stats);
  });
});
