/** Cells of the heatmap: which one is meant, and what it says. Pure. */
import { formatKinds, formatNumber, formatSteps, formatValue, visible } from "./format";
import { HEATMAP_STATS, statLabel } from "./heatmap_stats";
import type { HeatmapAnswer, HeatmapRow } from "./protocol.gen";
import { type StepRange, spanAt } from "./scale";

/** A place that the user points at. It outlives the answer it was picked from, so it is named and not numbered. */
export interface Cell {
  readonly step: number;
  readonly layer: string | null;
  readonly variable: string | null;
}

/** The name that stands for a row: its layer, or for a variable without one its own label. */
export function layerOf(row: HeatmapRow): string {
  return row.layer ?? row.label;
}

/** The row that a cell lies in; -1 where the heatmap has none (a loss, or another run's layer). */
export function findRow(rows: ReadonlyArray<HeatmapRow>, cell: Cell | null): number {
  if (cell === null) return -1;
  const exact = rows.findIndex((row) => row.variable !== null && row.variable === cell.variable);
  return exact >= 0 ? exact : rows.findIndex((row) => layerOf(row) === cell.layer);
}

/**
 * The value of a cell, unless it only stands beside what was non-finite.
 *
 * Of a layer of which one variable was bad, the number is the norm of the others: a line through it would fall where
 * the layer's norm was lost. Over several steps it may be the peak of the finite ones, unless it is 0.
 */
export function finiteValue(answer: HeatmapAnswer, row: number, column: number): number | null {
  const value = answer.values[row]?.[column] ?? null;
  const isBad = (answer.kinds[row]?.[column] ?? 0) !== 0;
  const isSingle = answer.first_step[column] === answer.last_step[column];
  return isBad && (isSingle || value === 0) ? null : value;
}

/** The steps of the column that holds a step; the step alone where no column does. */
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

/** What is known of one cell, in the order of the data flow. `figures` are one-column heatmaps of the cell's steps. */
function cellFacts(figures: ReadonlyArray<HeatmapAnswer>, cell: Cell): ReadonlyArray<CellFact> {
  return HEATMAP_STATS.flatMap(({ stat, label }) => {
    const parts = figures.filter((figure) => figure.stat === stat).map((figure) => partOf(figure, cell));
    const known = parts.filter((part) => part !== null);
    return known.length > 0 ? [factOf(label, known)] : [];
  });
}

interface Part {
  readonly keeps: string;
  readonly value: number | null;
  readonly kinds: number;
}

function partOf(figure: HeatmapAnswer, cell: Cell): Part | null {
  const row = findRow(figure.rows, cell);
  if (row < 0) return null;
  return { keeps: figure.keeps, value: finiteValue(figure, row, 0), kinds: figure.kinds[row]?.[0] ?? 0 };
}

function factOf(label: string, parts: ReadonlyArray<Part>): CellFact {
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

/** All that is known of a cell; until the rest has arrived, the number that the heatmap itself shows. */
export function knownFacts(
  cell: Cell,
  answer: HeatmapAnswer | null,
  figures: ReadonlyArray<HeatmapAnswer>,
): { readonly steps: StepRange; readonly facts: ReadonlyArray<CellFact> } {
  const steps = columnSteps(answer, cell.step);
  const ofColumn = figures.filter((figure) => figure.first_step[0] === steps.first);
  const facts = cellFacts(ofColumn, cell);
  return { steps, facts: facts.length > 0 || answer === null ? facts : shownFact(cell, answer) };
}

function shownFact(cell: Cell, answer: HeatmapAnswer): ReadonlyArray<CellFact> {
  const [row, column] = [findRow(answer.rows, cell), spanAt(cell.step, answer.first_step)];
  if (row < 0) return [];
  const kinds = answer.kinds[row]?.[column] ?? 0;
  const text = formatValue(answer.values[row]?.[column] ?? null, kinds);
  return [{ label: statLabel(answer.stat), text, nonfinite: kinds !== 0 }];
}

/** The cell in a sentence, for those who hear the page and those who read it. */
export function describeCell(cell: Cell, steps: StepRange, facts: ReadonlyArray<CellFact>): string {
  const stepsText = `${steps.first === steps.last ? "Step" : "Steps"} ${formatSteps(steps.first, steps.last)}`;
  const name = cell.variable ?? cell.layer;
  const place = name === null ? stepsText : `${stepsText}, ${visible(name)}`;
  const said = facts.map((fact) => `${fact.label.toLowerCase()} ${fact.text}`).join("; ");
  return said === "" ? place : `${place}: ${said}`;
}
