import { describe, expect, it } from "vitest";
import { columnSteps, describeCell, findRow, knownFacts } from "../src/cells";
import type { HeatmapAnswer } from "../src/protocol.gen";
import { HEATMAP } from "./examples";

const CELL = { step: 411, layer: "l3_1", variable: null };

function figure(stat: string, keeps: string, value: number | null, kinds = 0): HeatmapAnswer {
  const column = { first_step: [200], last_step: [411], values: [[7], [value]], kinds: [[0], [kinds]] };
  return { ...HEATMAP, ...column, stat, keeps };
}

describe("findRow", () => {
  const rows = [
    { label: "bias", layer: null, variable: null },
    { label: "l3_1/V", layer: "l3_1", variable: "l3_1/V" },
    { label: "l3_1/g", layer: "l3_1", variable: "l3_1/g" },
  ];

  it("finds a variable by its name, and a layer by its first row", () => {
    expect(findRow(rows, { ...CELL, variable: "l3_1/g" })).toBe(2);
    expect(findRow(rows, CELL)).toBe(1);
  });

  it("finds a row without a layer by its label", () => {
    expect(findRow(rows, { ...CELL, layer: "bias" })).toBe(0);
  });

  it("finds nothing for another run's layer or for no cell", () => {
    expect(findRow(rows, { ...CELL, layer: "conv" })).toBe(-1);
    expect(findRow(rows, null)).toBe(-1);
  });
});

describe("columnSteps", () => {
  it("returns the column that holds the step", () => {
    expect(columnSteps(HEATMAP, 150)).toEqual({ first: 100, last: 199 });
  });

  it("returns the step alone outside of the heatmap, and without a heatmap", () => {
    expect(columnSteps(HEATMAP, 900)).toEqual({ first: 900, last: 900 });
    expect(columnSteps(null, 3)).toEqual({ first: 3, last: 3 });
  });
});

describe("knownFacts", () => {
  it("shows the extremes and the mean of merged steps", () => {
    const figures = [
      figure("grad_norm", "max", 9),
      figure("grad_norm", "min", 1),
      figure("grad_norm", "mean", 2),
    ];
    expect(knownFacts(CELL, HEATMAP, figures).facts).toEqual([
      { label: "Gradient norm", text: "1 to 9, mean 2", nonfinite: false },
    ]);
  });

  it("shows a single number once, zero as zero and an absent value as absent", () => {
    const figures = [
      figure("grad_norm", "max", 0),
      figure("clip_ratio", "min", 0.5),
      figure("weight_norm", "max", null),
    ];
    expect(knownFacts(CELL, HEATMAP, figures).facts.map((fact) => fact.text)).toEqual(["0", "0.5", "–"]);
  });

  it("never lets finite steps of a column hide a non-finite step", () => {
    const figures = [figure("grad_norm", "max", 9, 3), figure("clipped_norm", "max", null, 1)];
    expect(knownFacts(CELL, HEATMAP, figures).facts).toEqual([
      { label: "Gradient norm", text: "+Inf, NaN (else 9)", nonfinite: true },
      { label: "After clipping", text: "NaN", nonfinite: true },
    ]);
  });
});

describe("knownFacts of a single step", () => {
  it("does not show the norm of a layer's other variables when a variable was non-finite", () => {
    const single = { ...figure("grad_norm", "max", 9, 1), first_step: [200], last_step: [200] };
    const heatmap = { ...HEATMAP, first_step: [0, 100, 200], last_step: [99, 199, 200] };
    expect(knownFacts({ ...CELL, step: 200 }, heatmap, [single]).facts).toEqual([
      { label: "Gradient norm", text: "NaN", nonfinite: true },
    ]);
  });
});

describe("knownFacts before the figures of the cell arrive", () => {
  it("shows the number that the heatmap itself shows", () => {
    const stale = { ...figure("grad_norm", "max", 5), first_step: [0] };
    for (const figures of [[], [stale]]) {
      expect(knownFacts({ ...CELL, layer: "l3" }, HEATMAP, figures)).toEqual({
        steps: { first: 200, last: 411 },
        facts: [{ label: "Gradient norm", text: "100", nonfinite: false }],
      });
    }
  });

  it("shows nothing for a cell that lies in no row", () => {
    expect(knownFacts({ ...CELL, layer: "loss" }, HEATMAP, []).facts).toEqual([]);
  });
});

describe("describeCell", () => {
  it("puts step, place and numbers in a sentence, and escapes invisible characters", () => {
    const facts = [{ label: "Gradient norm", text: "+Inf", nonfinite: true }];
    const cell = { step: 1000, layer: "a\nb", variable: null };
    expect(describeCell(cell, { first: 1000, last: 1000 }, facts)).toBe(
      "Step 1,000, a\\nb: gradient norm +Inf",
    );
  });

  it("names the steps of a merged column", () => {
    expect(describeCell(CELL, { first: 200, last: 411 }, [])).toBe("Steps 200–411, l3_1");
  });
});
