import { expect, test } from "vitest";
import { runPanels } from "../../src/charts/panels";
import type { Curve, SeriesAnswer } from "../../src/protocol.gen";

const NOTHING: SeriesAnswer = {
  run: "relu",
  session: 0,
  sessions: [0],
  first_step: [0, 1],
  last_step: [0, 1],
  curves: [],
  tensors: [],
};

function curve(name: string, values: ReadonlyArray<number | null>): Curve {
  return { name, min: values, max: values, mean: values, kinds: values.map(() => 0) };
}

function titles(...curves: ReadonlyArray<Curve>): ReadonlyArray<string> {
  return runPanels({ ...NOTHING, curves }).map(({ title }) => title);
}

test("a run has a panel for each recorded statistic, in the order of the charts", () => {
  const all = ["microbatches", "loss_scale", "skipped", "global_norm", "loss"].map((name) =>
    curve(name, [1, 2]),
  );
  expect(titles(...all)).toEqual(["Loss", "Gradient norm", "Skipped steps", "Loss scale", "Micro-batches"]);
});

test("skipped steps have a panel only if a step was skipped", () => {
  expect(titles(curve("skipped", [0, 0]))).toEqual([]);
  expect(titles(curve("skipped", [0, 1]))).toEqual(["Skipped steps"]);
});

test("the norm after clipping and the clip ratio are drawn only where something is clipped", () => {
  const norms = [curve("global_norm", [1, 2]), curve("clipped_global_norm", [1, 1])];
  const linesWith = (ratio: number) =>
    runPanels({ ...NOTHING, curves: [...norms, curve("clip_ratio", [1, ratio])] }).map(
      ({ title, lines }) => `${title}: ${lines.map(({ label }) => label).join(", ")}`,
    );
  expect(linesWith(1)).toEqual(["Gradient norm: "]);
  expect(linesWith(0.5)).toEqual(["Gradient norm: before, after", "Clip ratio: "]);
});
