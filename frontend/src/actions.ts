/** What a person can do on the page: each sets values of the state, and all else follows. */
import { batch } from "@preact/signals";
import { type Cell, findRow, layerOf } from "./cells";
import type { DeepLink } from "./link";
import { type StepRange, spanAt, stepCount } from "./scale";
import type { State } from "./state";

/** Shows a run; what was chosen in another one does not carry over. */
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

/** Shows another session of the run, or the verdict's own again. */
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

/** Remembers the run on show as chosen: with something chosen in it, no other may take its place. */
function keepRun({ choices, derived }: State): void {
  choices.run.value ??= derived.verdict.peek()?.run ?? null;
}

/** Selects a step, and with it the layer it was picked in; a step picked in the timeline leaves the layer as it is. */
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

/** Moves the selection by whole columns and rows of the heatmap, and stops at its edges. */
export function moveSelection(state: State, columns: number, rows: number): void {
  const answer = state.derived.heatmap.peek();
  const current = state.derived.cell.peek();
  if (answer === null || answer.first_step.length === 0 || answer.rows.length === 0) return;
  const column =
    current === null ? answer.first_step.length - 1 : spanAt(current.step, answer.first_step) + columns;
  const row = Math.max(0, findRow(answer.rows, current)) + (current === null ? 0 : rows);
  selectAt(state, clamp(column, answer.first_step.length), clamp(row, answer.rows.length));
}

/** Selects the cell in a column and a row of the heatmap on show. */
export function selectAt(state: State, column: number, row: number): void {
  const cell = cellAt(state, column, row);
  if (cell !== null) selectCell(state, cell);
}

/** The cell in a column and a row of the heatmap on show; of the bad step's column it is the bad step that is meant. */
export function cellAt({ derived }: State, column: number, row: number): Cell | null {
  const answer = derived.heatmap.peek();
  const [first, last] = [answer?.first_step[column], answer?.last_step[column]];
  const entry = answer?.rows[row];
  if (first === undefined || last === undefined || entry === undefined) return null;
  const bad = derived.badStep.peek() ?? -1;
  const step = first <= bad && bad <= last ? bad : first;
  return { step, layer: layerOf(entry), variable: entry.variable };
}

function clamp(index: number, length: number): number {
  return Math.min(length - 1, Math.max(0, index));
}

/** Shows a range of steps at the resolution that is stored. A range of one step is widened, since it would show nothing. */
export function zoomTo(state: State, range: StepRange): void {
  const first = Math.max(0, range.first);
  batch(() => {
    keepRun(state);
    state.choices.zoom.value = { first, last: Math.max(range.last, first + 1) };
  });
}

/** Shows the steps around the selected one; each time closer. */
export function zoomToSelection(state: State): void {
  const [range, cell] = [state.derived.range.peek(), state.derived.cell.peek()];
  if (range === null || cell === null) return;
  const reach = Math.max(4, Math.round(stepCount(range) / 16));
  zoomTo(state, { first: cell.step - reach, last: Math.min(range.last, cell.step + reach) });
}

export function showAllSteps({ choices }: State): void {
  choices.zoom.value = null;
}

/** Takes over what an address says, unless the page itself has just put it there. */
export function openLink(state: State, link: DeepLink): void {
  const current = linkOf(state);
  if (current.run === link.run && current.step === link.step && current.layer === link.layer) return;
  batch(() => {
    if (link.run !== null) showRun(state, link.run);
    if (link.step !== null) selectCell(state, { step: link.step, layer: link.layer, variable: null });
  });
}

/** What the address should say: only what was chosen, so that a plain address keeps opening with the verdict. */
export function linkOf({ choices }: State): DeepLink {
  const cell = choices.cell.value;
  return {
    run: choices.run.value,
    step: cell?.step ?? null,
    layer: cell?.layer ?? null,
  };
}
