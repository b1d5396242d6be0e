/** Numbers, steps, kinds and names as text. Pure. */
import type { FindingRow, Origin } from "./protocol.gen";

export type Kind = NonNullable<Origin["kind"]>;

/** The text in place of an absent number. */
export const NO_VALUE = "–";

const KIND_BITS: ReadonlyArray<readonly [bit: number, label: string]> = [
  [2, "+Inf"],
  [4, "-Inf"],
  [8, "Inf"],
  [1, "NaN"],
];

export const KIND_LABELS: Readonly<Record<Kind, string>> = { nan: "NaN", pos_inf: "+Inf", neg_inf: "-Inf" };

export const PHASE_LABELS: Readonly<Record<Origin["phase"], string>> = {
  input: "input",
  weights: "weights, before the step",
  forward: "forward pass",
  loss: "loss",
  backward: "backward pass",
  clip: "clipping",
  update: "optimizer update",
  state: "layer or optimizer state",
};

export const ROLE_LABELS: Readonly<Record<FindingRow["role"], string>> = {
  input: "Input",
  weight: "Weight",
  tensor: "Watched tensor",
  loss: "Loss",
  gradient: "Gradient",
  clipped: "Clipped gradient",
  state: "Statistic",
  scalar: "Scalar of the update",
};

/** Format a number with `digits` significant digits: as a decimal from 0.001 to 99,999, else with a power of ten. */
export function formatNumber(value: number, digits = 4): string {
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  if (size === 0 || (size >= 0.001 && size < 100_000)) return String(rounded);
  return rounded.toExponential().replace("+", "");
}

/** Format a number. If kinds were recorded, format these instead. */
export function formatValue(value: number | null, kinds = 0): string {
  if (kinds !== 0) return formatKinds(kinds);
  return value === null ? NO_VALUE : formatNumber(value);
}

/** Format a step or a count with thousands separators. */
export function formatStep(step: number): string {
  return String(Math.round(step)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Format the steps of a span: a single step, or the first and the last. */
export function formatSteps(first: number, last: number): string {
  return first === last ? formatStep(first) : `${formatStep(first)}–${formatStep(last)}`;
}

/** Format a count with its noun in the singular or plural. */
export function plural(count: number, noun: string): string {
  return `${formatStep(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Name the kinds in a bit mask (1 NaN, 2 +Inf, 4 -Inf, 8 Inf of unknown sign). Inf comes first, since it turns into NaN. */
export function formatKinds(bits: number): string {
  return KIND_BITS.filter(([bit]) => (bits & bit) !== 0)
    .map(([, label]) => label)
    .join(", ");
}

/** Characters that break a line, are invisible, or reorder the text around them. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
]);

/** Escape the invisible characters of a name. A name is data and must not imitate the page around it. */
export function visible(name: string): string {
  return name.replace(INVISIBLE, (character) => {
    const short = ESCAPES.get(character);
    return short ?? `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
  });
}

/** Format a text as a Python literal of the same text, with invisible characters escaped. */
export function pythonString(text: string): string {
  return JSON.stringify(text).replace(INVISIBLE, (character) => {
    const code = (character.codePointAt(0) ?? 0).toString(16);
    return code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
  });
}

/** Cut a long text, such as a tooltip, which a style sheet cannot cut. */
export function shorten(text: string, limit = 400): string {
  return text.length <= limit ? text : `${text.slice(0, limit - 1)}…`;
}
