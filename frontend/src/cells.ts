/** Cells of the heatmap: the row of each, its numbers, and its description. Pure. */
import { formatKinds, formatNumber, formatSteps, formatValue, visible } from "./format";
import { HEATMAP_STATS, statLabel } from "./heatmap_stats";
import type { HeatmapAnswer, HeatmapRow } from "./protocol.gen";
import { type StepRange, spanAt } from "./scale";

/** A place that the user points at. It outlives the answer it was picked in, so it holds names instead of indices. */
export interface Cell {
  readonly step: number;
  readonly layer: string | null;
  readonly variable: string | null;
}

/** Return the layer of a row. A variable without a layer counts as a layer of its own. */
export function layerOf(row: HeatmapRow): string {
  return row.layer ?? row.label;
}

/** Return the row of a cell; -1 if the heatmap has no such row (the loss, or a layer of another run). */
export function findRow(rows: ReadonlyArray<HeatmapRow>, cell: Cell | null): number {
  if (cell === null) return -1;
  const exact = rows.findIndex((row) => row.variable !== null && row.variable === cell.variable);
  return exact >= 0 ? exact : rows.findIndex((row) => layerOf(row) === cell.layer);
}

/**
 * Return the value of a cell; `null` where the number would mislead because something was non-finite.
 *
 * If a variable of a layer was bad, the number is the norm of the layer's other variables. A line through it would
 * fall where the layer's norm was lost. Over several steps the number is the peak of the finite steps, unless it is 0.
 */
export function finiteValue(answer: HeatmapAnswer, row: number, column: number): number | null {
  const value = answer.values[row]?.[column] ?? null;
  const isBad = (answer.kinds[row]?.[column] ?? 0) !== 0;
  const isSingle = answer.first_step[column] === answer.last_step[column];
  return isBad && (isSingle || value === 0) ? null : value;
}

/** Return the steps of the column that holds a step; if no column holds it, the step alone. */
export function columnSteps(answer: HeatmapAnswer | null, step: number): StepRange {
  const index = answer === null ? -1 : spanAt(step, answer.first_step);
  const first = answer?.first_step[index];
  const last = answer?.last_step[index];
  const holds = first !== undefined && last !== undefined && first <= step && step <= last;
  return holds ? { first, last } : { first: step, last: step };
}

export interface CellFact {
  readonly label: string;
  readonly text: string;
  readonly nonfinite: boolean;
}

/** Return the facts about a cell, in the order of the data flow. `figures` are one-column heatmaps of its steps. */
function cellFacts(figures: ReadonlyArray<HeatmapAnswer>, cell: Cell): ReadonlyArray<CellFact> {
  return HEATMAP_STATS.flatMap(({ stat, label }) => {
    const ofStat = figures.filter((figure) => figure.stat === stat);
    const parts = ofStat.map((figure) => cellPart(figure, cell)).filter((part) => part !== null);
    return parts.length > 0 ? [cellFact(label, parts)] : [];
  });
}

/** One merge of one statistic, such as the largest gradient norm, in a cell. */
interface Part {
  readonly keeps: string;
  readonly value: number | null;
  readonly kinds: number;
}

function cellPart(figure: HeatmapAnswer, cell: Cell): Part | null {
  const row = findRow(figure.rows, cell);
  if (row < 0) return null;
  return { keeps: figure.keeps, value: finiteValue(figure, row, 0), kinds: figure.kinds[row]?.[0] ?? 0 };
}

function cellFact(label: string, parts: ReadonlyArray<Part>): CellFact {
  const kinds = parts.reduce((bits, part) => bits | part.kinds, 0);
  return { label, text: factText(parts, kinds), nonfinite: kinds !== 0 };
}

function factText(parts: ReadonlyArray<Part>, kinds: number): string {
  const numbers = finiteText(parts);
  if (kinds === 0) return numbers ?? formatValue(null);
  return numbers === null ? formatKinds(kinds) : `${formatKinds(kinds)} (else ${numbers})`;
}

function finiteText(parts: ReadonlyArray<Part>): string | null {
  const value = (keeps: string): number | null => parts.find((part) => part.keeps === keeps)?.value ?? null;
  const [min, mean, max] = [value("min"), value("mean"), value("max")];
  if (min !== null && max !== null && min !== max) {
    const middle = mean === null ? "" : `, mean ${formatNumber(mean)}`;
    return `${formatNumber(min)} to ${formatNumber(max)}${middle}`;
  }
  const only = max ?? min;
  return only === null ? null : formatNumber(only);
}

/** Return the steps and facts of a cell. Until its figures arrive, the only fact is the heatmap's own number. */
export function knownFacts(
  cell: Cell,
  answer: HeatmapAnswer | null,
  figures: ReadonlyArray<HeatmapAnswer>,
): { readonly steps: StepRange; readonly facts: ReadonlyArray<CellFact> } {
  const steps = columnSteps(answer, cell.step);
  const current = figures.filter((figure) => figure.first_step[0] === steps.first);
  const facts = cellFacts(current, cell);
  return { steps, facts: facts.length > 0 || answer === null ? facts : shownFact(cell, answer) };
}

function shownFact(cell: Cell, answer: HeatmapAnswer): ReadonlyArray<CellFact> {
  const [row, column] = [findRow(answer.rows, cell), spanAt(cell.step, answer.first_step)];
  if (row < 0) return [];
  const kinds = answer.kinds[row]?.[column] ?? 0;
  const text = formatValue(answer.values[row]?.[column] ?? null, kinds);
  return [{ label: statLabel(answer.stat), text, nonfinite: kinds !== 0 }];
}

/** Name the steps of a range: "Step 5" or "Steps 5–9". */
export function describeSteps({ first, last }: StepRange): string {
  return `${first === last ? "Step" : "Steps"} ${formatSteps(first, last)}`;
}

/** Describe a cell in a sentence, which is shown and which screen readers announce. */
export function describeCell(cell: Cell, steps: StepRange, facts: ReadonlyArray<CellFact>): string {
  const name = cell.variable ?? cell.layer;
  const place = name === null ? describeSteps(steps) : `${describeSteps(steps)}, ${visible(name)}`;
  const numbers = facts.map((fact) => `${fact.label.toLowerCase()} ${fact.text}`).join("; ");
  return numbers === "" ? place : `${place}: ${numbers}`;
}
