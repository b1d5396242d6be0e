import { describe, expect, it } from "vitest";
import { type PanelModel, panelData, readout } from "../../src/charts/lines";
import { rowPanel, runPanels } from "../../src/charts/panels";
import { HEATMAP, SERIES } from "../examples";

const LINE = {
  label: "",
  colour: 0,
  curve: { name: "loss", min: [1, null, 3], max: [10, null, 3], mean: [2, null, 3], kinds: [0, 1, 0] },
};
const MODEL: PanelModel = {
  key: "loss",
  title: "Loss",
  first_step: [0, 10, 20],
  last_step: [9, 19, 20],
  lines: [LINE],
};

describe("panelData", () => {
  it("draws the mean in the middle of its steps, within its extremes", () => {
    const [middles, main, upper, lower] = panelData(MODEL, "linear").columns;
    expect(middles).toEqual([4.5, 14.5, 20]);
    expect(main).toEqual([2, null, 3]);
    expect(upper).toEqual([10, null, 3]);
    expect(lower).toEqual([1, null, 3]);
  });

  it("draws an extreme if the mean is not kept", () => {
    const line = { ...LINE, curve: { ...LINE.curve, min: [], mean: [] } };
    const [, main, upper, lower] = panelData({ ...MODEL, lines: [line] }, "linear").columns;
    expect([main, upper, lower]).toEqual([
      [10, null, 3],
      [10, null, 3],
      [null, null, null],
    ]);
  });
});

describe("readout", () => {
  it("shows extremes, non-finite kinds, or a single number", () => {
    expect([3, 12, 20].map((step) => readout(MODEL, LINE, step))).toEqual(["1–10", "NaN", "3"]);
  });
});

describe("runPanels", () => {
  it("has one norm and no clip ratio if nothing was clipped", () => {
    expect(runPanels(SERIES).map(({ title, lines }) => [title, lines.length])).toEqual([
      ["Loss", 1],
      ["Gradient norm", 1],
    ]);
  });

  it("has both norms and the clip ratio if something was clipped, and a panel for each watched tensor", () => {
    const curves = SERIES.curves.map((curve) =>
      curve.name === "clip_ratio" ? { ...curve, min: [1, 0.5] } : curve,
    );
    const tensors = [{ name: "values", min: [1, 1], max: [2, 2], mean: [1, 1], kinds: [0, 0] }];
    expect(
      runPanels({ ...SERIES, curves, tensors }).map(({ title, lines }) => [title, lines.length]),
    ).toEqual([
      ["Loss", 1],
      ["Gradient norm", 2],
      ["Clip ratio", 1],
      ["values", 1],
    ]);
  });

  it("keeps a loss that was never finite", () => {
    const loss = { name: "loss", min: [null, null], max: [null, null], mean: [null, null], kinds: [1, 1] };
    expect(runPanels({ ...SERIES, curves: [loss] }).map(({ title }) => title)).toEqual(["Loss"]);
  });

  it("leaves out a loss that was not recorded", () => {
    const loss = { name: "loss", min: [null, null], max: [null, null], mean: [null, null], kinds: [0, 0] };
    expect(runPanels({ ...SERIES, curves: [loss] })).toEqual([]);
  });
});

describe("rowPanel", () => {
  it("draws the selected row of the heatmap", () => {
    const panel = rowPanel(HEATMAP, { step: 5, layer: "l3_1", variable: null });
    expect(panel?.title).toBe("l3_1");
    expect(panel?.note).toBe("gradient norm (max)");
    expect(panel?.lines[0]?.curve.max).toEqual([0, null, 1000]);
  });

  it("has a gap where the number is only the norm of a layer's other variables", () => {
    const drawn = (values: number[], last_step: number[]) => {
      const answer = { ...HEATMAP, last_step, values: [[], values] };
      return rowPanel(answer, { step: 5, layer: "l3_1", variable: null })?.lines[0]?.curve;
    };
    const single = [99, 199, 200];
    expect(drawn([0, 1, 0], single)?.max).toEqual([0, 1, null]);
    expect(drawn([0, 1, 0.5], single)?.max).toEqual([0, 1, null]);
    expect(drawn([0, 1, 0], [99, 199, 411])?.max).toEqual([0, 1, null]);
    expect(drawn([0, 1, 900], [99, 199, 411])?.max).toEqual([0, 1, 900]);
    expect(drawn([0, 1, 0], single)?.kinds).toEqual([0, 0, 3]);
  });

  it("returns null for a selection outside of the heatmap", () => {
    expect(rowPanel(HEATMAP, { step: 5, layer: "loss", variable: null })).toBeNull();
  });
});
