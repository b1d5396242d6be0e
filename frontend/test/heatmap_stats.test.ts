import { describe, expect, it } from "vitest";
import { columnFigures, HEATMAP_STATS, type HeatmapStat, isInformative } from "../src/heatmap_stats";

const STATS: ReadonlyArray<HeatmapStat> = HEATMAP_STATS.map(({ stat }) => stat);
const OF_CLIPPING: ReadonlyArray<HeatmapStat> = ["clipped_norm", "clip_ratio"];

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
    expect(stats(true)).toEqual(STATS);
    expect(stats(false)).toEqual(STATS.filter((stat) => !OF_CLIPPING.includes(stat)));
  });
});

it("offers the norms in the order of the data flow", () => {
  const norms = STATS.filter((stat) =>
    ["grad_norm", "clipped_norm", "clip_ratio", "weight_norm"].includes(stat),
  );
  expect(norms).toEqual(["grad_norm", "clipped_norm", "clip_ratio", "weight_norm"]);
});

describe("isInformative", () => {
  it("is false only for the statistics of clipping, and only if nothing is clipped", () => {
    expect(STATS.filter((stat) => !isInformative(stat, false))).toEqual(OF_CLIPPING);
    expect(STATS.filter((stat) => !isInformative(stat, true))).toEqual([]);
  });
});
