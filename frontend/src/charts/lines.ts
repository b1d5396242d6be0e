/** The numbers that a panel of the timeline draws: curves on a common axis. Pure. */
import { formatNumber, formatValue } from "../format";
import type { Curve } from "../protocol.gen";
import { type Spacing, spanAt, type ValueAxis, valueAxis } from "../scale";

export interface Line {
  readonly label: string;
  readonly curve: Curve;
  /** Index of its colour in the palette. */
  readonly colour: number;
}

export interface PanelModel {
  readonly key: string;
  readonly title: string;
  /** A remark below the title. */
  readonly note?: string;
  readonly first_step: ReadonlyArray<number>;
  readonly last_step: ReadonlyArray<number>;
  readonly lines: ReadonlyArray<Line>;
}

type Column = Array<number | null>;

export interface PanelData {
  readonly axis: ValueAxis;
  /** The middle of each span, then for each line three columns: the line itself, its upper and its lower bound. */
  readonly columns: readonly [number[], ...Column[]];
}

/** Lay out a panel. */
export function panelData(model: PanelModel, spacing: Spacing): PanelData {
  const bounds = model.lines.flatMap(({ curve }) => [curve.min, curve.max, curve.mean].flat());
  const axis = valueAxis(
    bounds.filter((value) => value !== null),
    spacing,
  );
  const middles = model.first_step.map((first, index) => (first + (model.last_step[index] ?? first)) / 2);
  const place = (values: ReadonlyArray<number | null>): Column =>
    middles.map((_, index) => placed(values[index] ?? null, axis));
  const columns = model.lines.flatMap(({ curve }) => [
    place(mainOf(curve)),
    place(upperOf(curve)),
    place(lowerOf(curve)),
  ]);
  return { axis, columns: [middles, ...columns] };
}

function placed(value: number | null, axis: ValueAxis): number | null {
  return value === null ? null : axis.place(value);
}

function firstKept(...lists: ReadonlyArray<ReadonlyArray<number | null>>): ReadonlyArray<number | null> {
  return lists.find((list) => list.length > 0) ?? [];
}

/** Return the values of the line: the mean of each span, or if it is not kept, an extreme. */
function mainOf(curve: Curve): ReadonlyArray<number | null> {
  return firstKept(curve.mean, curve.max, curve.min);
}

function upperOf(curve: Curve): ReadonlyArray<number | null> {
  return firstKept(curve.max, curve.mean);
}

function lowerOf(curve: Curve): ReadonlyArray<number | null> {
  return firstKept(curve.min, curve.mean);
}

/** Format a line's value at a step: one number, or the extremes of the span that holds the step. */
export function readout(model: PanelModel, line: Line, step: number): string {
  const index = spanAt(step, model.first_step);
  const { curve } = line;
  const kinds = curve.kinds[index] ?? 0;
  const [lower, upper] = [lowerOf(curve)[index] ?? null, upperOf(curve)[index] ?? null];
  if (lower === null || upper === null || kinds !== 0 || lower === upper)
    return formatValue(upper ?? lower, kinds);
  return `${formatNumber(lower, 3)}–${formatNumber(upper, 3)}`;
}
