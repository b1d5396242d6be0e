import { describe, expect, it } from "vitest";
import {
  linkOf,
  moveSelection,
  openLink,
  selectAt,
  selectCell,
  showRun,
  showSession,
  zoomTo,
  zoomToSelection,
} from "../src/actions";
import type { SeriesAnswer } from "../src/protocol.gen";
import { createState, type State } from "../src/state";
import { FINITE, HEATMAP, NONFINITE, SERIES } from "./examples";

/** Open a page that lists the runs "relu" and "tanh" and has the answers about "relu". */
function openPage(): State {
  const state = createState();
  state.answers.verdicts.answer.value = { runs: [FINITE, NONFINITE], schema: 1 };
  state.answers.heatmap.answer.value = HEATMAP;
  state.answers.series.answer.value = SERIES;
  return state;
}

const CULPRIT = { step: 411, layer: "l3_1", variable: null };

describe("the page before any choice", () => {
  it("shows the most urgent run, and the step and layer of its verdict", () => {
    const { derived } = openPage();
    expect(derived.verdict.value?.run).toBe("relu");
    expect(derived.cell.value).toEqual(CULPRIT);
    expect(derived.range.value).toEqual({ first: 0, last: 411 });
  });

  it("sends no request without a run, nor for an empty run", () => {
    const state = createState();
    state.answers.verdicts.answer.value = { runs: [{ ...FINITE, status: "empty" }], schema: 1 };
    expect(Object.values(state.requests).map((request) => request.value)).toEqual(["", "", "", "", ""]);
  });

  it("sends no request for a link whose run is not there yet", () => {
    const state = createState();
    openLink(state, { run: "relu", step: 3, layer: "l3" });
    expect(Object.values(state.requests).map((request) => request.value)).toEqual(["", "", "", "", ""]);
  });

  it("requests relative addresses, and the details of the bad step", () => {
    const { requests } = openPage();
    expect(requests.series.value).toBe("./series?run=relu&points=600");
    expect(requests.heatmap.value).toBe("./heatmap?run=relu&by=layer&stat=grad_norm&keeps=max&columns=300");
    expect(requests.alert.value).toBe("./alert?run=relu&step=411");
    expect(requests.selected.value.split("\n")[0]).toBe(
      "./heatmap?run=relu&by=layer&stat=grad_norm&keeps=max&first=200&last=411&columns=1",
    );
  });
});

describe("showing another run", () => {
  it("drops the choices made in the run before", () => {
    const state = openPage();
    selectCell(state, { step: 5, layer: "l3", variable: null });
    zoomTo(state, { first: 0, last: 50 });
    showRun(state, "tanh");
    expect(state.derived.cell.value).toBeNull();
    expect(state.choices.zoom.value).toBeNull();
  });

  it("does not show the other run's answers", () => {
    const state = openPage();
    showRun(state, "tanh");
    expect(state.derived.heatmap.value).toBeNull();
    expect(state.derived.series.value).toBeNull();
  });

  it("stays with the chosen run as verdicts change", () => {
    const state = openPage();
    showRun(state, "tanh");
    state.answers.verdicts.answer.value = { runs: [{ ...FINITE, steps_seen: 2000 }, NONFINITE], schema: 1 };
    expect(state.derived.verdict.value?.steps_seen).toBe(2000);
  });
});

describe("a more urgent run", () => {
  const worse = { ...NONFINITE, run: "elu" };

  it("replaces a run that the user did not choose, but not an equally urgent run", () => {
    const state = createState();
    state.answers.verdicts.answer.value = { runs: [FINITE], schema: 1 };
    state.shownRun.value = "tanh";
    state.answers.verdicts.answer.value = { runs: [FINITE, NONFINITE], schema: 1 };
    expect(state.derived.verdict.value?.run).toBe("relu");
    state.shownRun.value = "relu";
    state.answers.verdicts.answer.value = { runs: [FINITE, NONFINITE, worse], schema: 1 };
    expect(state.derived.verdict.value?.run).toBe("relu");
  });

  it("does not replace a run in which the user selected a cell", () => {
    const state = createState();
    state.answers.verdicts.answer.value = { runs: [FINITE], schema: 1 };
    selectCell(state, { step: 3, layer: "dense", variable: null });
    state.answers.verdicts.answer.value = { runs: [FINITE, worse], schema: 1 };
    expect(state.derived.verdict.value?.run).toBe("tanh");
  });
});

describe("selecting", () => {
  it("in the timeline keeps the layer", () => {
    const state = openPage();
    selectCell(state, { step: 7, layer: null, variable: null });
    expect(state.derived.cell.value).toEqual({ step: 7, layer: "l3_1", variable: null });
  });

  it("in the heatmap takes the first step of a column, and in the bad step's column the bad step", () => {
    const state = openPage();
    selectAt(state, 1, 0);
    expect(state.derived.cell.value).toEqual({ step: 100, layer: "l3", variable: null });
    selectAt(state, 2, 0);
    expect(state.derived.cell.value).toEqual({ step: 411, layer: "l3", variable: null });
  });

  it("moves by columns and rows, and stops at the edges", () => {
    const state = openPage();
    moveSelection(state, -1, 0);
    expect(state.derived.cell.value).toEqual({ step: 100, layer: "l3_1", variable: null });
    moveSelection(state, Number.NEGATIVE_INFINITY, -5);
    expect(state.derived.cell.value).toEqual({ step: 0, layer: "l3", variable: null });
    moveSelection(state, 99, 99);
    expect(state.derived.cell.value).toEqual(CULPRIT);
  });

  it("names the variable where rows are variables", () => {
    const state = openPage();
    const rows = [{ label: "l3_1/V", layer: "l3_1", variable: "l3_1/V" }];
    state.answers.heatmap.answer.value = { ...HEATMAP, rows };
    expect(state.derived.cell.value?.variable).toBe("l3_1/V");
  });
});

describe("zooming", () => {
  it("requests the shown steps", () => {
    const state = openPage();
    zoomTo(state, { first: 300, last: 411 });
    expect(state.requests.series.value).toBe("./series?run=relu&first=300&last=411&points=600");
    expect(state.derived.range.value).toEqual({ first: 300, last: 411 });
  });

  it("never requests steps before 0 nor a single step", () => {
    const state = openPage();
    zoomTo(state, { first: -10, last: -10 });
    expect(state.choices.zoom.value).toEqual({ first: 0, last: 1 });
  });

  it("comes closer to the selection each time, and keeps it in view", () => {
    const state = openPage();
    zoomToSelection(state);
    expect(state.choices.zoom.value).toEqual({ first: 385, last: 411 });
    zoomToSelection(state);
    expect(state.choices.zoom.value).toEqual({ first: 407, last: 411 });
  });
});

describe("sessions", () => {
  it("shows no bad step in a session that the verdict is not about", () => {
    const state = openPage();
    showSession(state, 1);
    expect(state.requests.series.value).toBe("./series?run=relu&session=1&points=600");
    expect(state.derived.badStep.value).toBeNull();
    expect(state.derived.cell.value).toBeNull();
  });

  it("shows the bad step again in the verdict's session", () => {
    const state = openPage();
    showSession(state, 1);
    state.answers.series.answer.value = { ...SERIES, session: 1 };
    showSession(state, 0);
    expect(state.derived.badStep.value).toBe(411);
  });
});

describe("links", () => {
  it("say only what was chosen", () => {
    const state = openPage();
    expect(linkOf(state)).toEqual({ run: null, step: null, layer: null });
    selectCell(state, { step: 7, layer: "l3", variable: null });
    expect(linkOf(state)).toEqual({ run: "relu", step: 7, layer: "l3" });
  });

  it("open what they say", () => {
    const state = openPage();
    openLink(state, { run: "tanh", step: 3, layer: "dense" });
    expect(state.derived.verdict.value?.run).toBe("tanh");
    expect(state.derived.cell.value).toEqual({ step: 3, layer: "dense", variable: null });
  });

  it("leave the selected variable alone when the page's own link comes back", () => {
    const state = openPage();
    selectCell(state, { step: 7, layer: "l3", variable: "l3/V" });
    openLink(state, linkOf(state));
    expect(state.choices.cell.value?.variable).toBe("l3/V");
  });
});

describe("failures", () => {
  it("are listed once each", () => {
    const state = openPage();
    state.answers.series.failure.value = "TensorBoard does not answer.";
    state.answers.heatmap.failure.value = "TensorBoard does not answer.";
    expect(state.derived.failures.value).toEqual(["TensorBoard does not answer."]);
  });
});

describe("a session that clips nothing", () => {
  const clipped: SeriesAnswer = {
    ...SERIES,
    curves: SERIES.curves.map((curve) => (curve.name === "clip_ratio" ? { ...curve, min: [1, 0.5] } : curve)),
  };
  const requestsClipping = ({ requests }: State) => requests.selected.value.includes("stat=clip_ratio");

  it("sends no request about clipping, and shows gradients instead", () => {
    const state = openPage();
    state.choices.stat.value = "clip_ratio";
    expect(requestsClipping(state)).toBe(false);
    expect(state.derived.stat.value).toBe("grad_norm");
    expect(state.requests.heatmap.value).toContain("stat=grad_norm");
  });

  it("is distinguished from a session that clips, also in steps without clipping", () => {
    const state = openPage();
    state.choices.stat.value = "clip_ratio";
    state.answers.series.answer.value = clipped;
    expect(state.derived.clips.value).toBe(true);
    state.answers.series.answer.value = SERIES;
    expect(state.derived.clips.value).toBe(true);
    expect(requestsClipping(state)).toBe(true);
    expect(state.requests.heatmap.value).toContain("stat=clip_ratio");
  });

  it("is not assumed to clip because the run shown before did", () => {
    const state = openPage();
    state.answers.series.answer.value = clipped;
    expect(state.derived.clips.value).toBe(true);
    showRun(state, "tanh");
    expect(state.derived.clips.value).toBe(false);
  });
});
