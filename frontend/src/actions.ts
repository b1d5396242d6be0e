/** The actions of a user. Each sets values of the state; the rest of the page follows from them. */
import { batch } from "@preact/signals";
import { type Cell, findRow, layerOf } from "./cells";
import type { DeepLink } from "./link";
import { type StepRange, spanAt, stepCount } from "./scale";
import type { State } from "./state";

/** Show a run. Choices made in another run are dropped. */
export function showRun({ choices, pointer }: State, run: string): void {
  if (choices.run.peek() === run) return;
  batch(() => {
    choices.run.value = run;
    choices.session.value = null;
    choices.cell.value = null;
    choices.zoom.value = null;
    pointer.value = null;
  });
}

/** Show another session of the run, or go back to the verdict's session. */
export function showSession(state: State, session: number): void {
  const { choices, derived } = state;
  const home = choices.session.peek()?.home ?? derived.series.peek()?.session ?? session;
  batch(() => {
    keepRun(state);
    choices.session.value = session === home ? null : { session, home };
    choices.cell.value = null;
    choices.zoom.value = null;
  });
}

/** Mark the shown run as chosen, so that no more urgent run replaces it while the user works in it. */
function keepRun({ choices, derived }: State): void {
  choices.run.value ??= derived.verdict.peek()?.run ?? null;
}

/** Select a step and the layer of the cell. A cell of the timeline has no layer; it leaves the selected layer as it is. */
export function selectCell(state: State, cell: Cell): void {
  const place = cell.layer === null ? state.derived.cell.peek() : cell;
  batch(() => {
    keepRun(state);
    state.choices.cell.value = {
      step: cell.step,
      layer: place?.layer ?? null,
      variable: place?.variable ?? null,
    };
  });
}

/** Move the selection by columns and rows of the heatmap. It stops at the edges. */
export function moveSelection(state: State, columns: number, rows: number): void {
  const answer = state.derived.heatmap.peek();
  const current = state.derived.cell.peek();
  if (answer === null || answer.first_step.length === 0 || answer.rows.length === 0) return;
  const column =
    current === null ? answer.first_step.length - 1 : spanAt(current.step, answer.first_step) + columns;
  const row = Math.max(0, findRow(answer.rows, current)) + (current === null ? 0 : rows);
  selectAt(state, clamp(column, answer.first_step.length), clamp(row, answer.rows.length));
}

/** Select the cell in a column and a row of the heatmap. */
export function selectAt(state: State, column: number, row: number): void {
  const cell = cellAt(state, column, row);
  if (cell !== null) selectCell(state, cell);
}

/** Return the cell in a column and a row of the heatmap. In the column that holds the bad step, it is the bad step's. */
export function cellAt({ derived }: State, column: number, row: number): Cell | null {
  const answer = derived.heatmap.peek();
  const [first, last] = [answer?.first_step[column], answer?.last_step[column]];
  const entry = answer?.rows[row];
  if (first === undefined || last === undefined || entry === undefined) return null;
  const badStep = derived.badStep.peek() ?? -1;
  const step = first <= badStep && badStep <= last ? badStep : first;
  return { step, layer: layerOf(entry), variable: entry.variable };
}

function clamp(index: number, length: number): number {
  return Math.min(length - 1, Math.max(0, index));
}

/** Show a range of steps at the stored resolution. A range of a single step would show nothing, so it is widened. */
export function zoomTo(state: State, range: StepRange): void {
  const first = Math.max(0, range.first);
  batch(() => {
    keepRun(state);
    state.choices.zoom.value = { first, last: Math.max(range.last, first + 1) };
  });
}

/** Show the steps around the selected step, closer at each call. */
export function zoomToSelection(state: State): void {
  const [range, cell] = [state.derived.range.peek(), state.derived.cell.peek()];
  if (range === null || cell === null) return;
  const reach = Math.max(4, Math.round(stepCount(range) / 16));
  zoomTo(state, { first: cell.step - reach, last: Math.min(range.last, cell.step + reach) });
}

export function showAllSteps({ choices }: State): void {
  choices.zoom.value = null;
}

/** Apply a link from the address, unless the page itself has just written it. */
export function openLink(state: State, link: DeepLink): void {
  const current = linkOf(state);
  if (current.run === link.run && current.step === link.step && current.layer === link.layer) return;
  batch(() => {
    if (link.run !== null) showRun(state, link.run);
    if (link.step !== null) selectCell(state, { step: link.step, layer: link.layer, variable: null });
  });
}

/** Return the link to the user's choices. Without a choice it is empty, so that the address opens with the verdict. */
export function linkOf({ choices }: State): DeepLink {
  const cell = choices.cell.value;
  return {
    run: choices.run.value,
    step: cell?.step ?? null,
    layer: cell?.layer ?? null,
  };
}
