/** Numbers, steps, kinds and names as people read them. Pure. */
import type { FindingRow, Origin } from "./protocol.gen";

export type Kind = NonNullable<Origin["kind"]>;

/** What stands where a number would, were there one. */
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

/** Spells a number with `digits` significant digits: plainly from 0.001 up to 99,999, as a power of ten beyond. */
export function formatNumber(value: number, digits = 4): string {
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  if (size === 0 || (size >= 0.001 && size < 100_000)) return String(rounded);
  return rounded.toExponential().replace("+", "");
}

/** Spells a number, or what was non-finite in its place, or that there is none. */
export function formatValue(value: number | null, kinds = 0): string {
  if (kinds !== 0) return formatKinds(kinds);
  return value === null ? NO_VALUE : formatNumber(value);
}

/** Spells a step or any whole count with thousands separators. */
export function formatStep(step: number): string {
  return String(Math.round(step)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Spells the steps of a span: one step, or the first and the last. */
export function formatSteps(first: number, last: number): string {
  return first === last ? formatStep(first) : `${formatStep(first)}–${formatStep(last)}`;
}

/** Says a count with its noun, in the plural where it is due. */
export function plural(count: number, noun: string): string {
  return `${formatStep(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Names the kinds in a bit mask (1 NaN, 2 +Inf, 4 -Inf, 8 Inf of unknown sign): Inf first, since NaN is what it turns into. */
export function formatKinds(bits: number): string {
  return KIND_BITS.filter(([bit]) => (bits & bit) !== 0)
    .map(([, label]) => label)
    .join(", ");
}

/** Characters that would break a line, hide, or reorder the text around them. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
]);

/** Makes control characters of a name visible: a name is data, and must not be able to imitate the page around it. */
export function visible(name: string): string {
  return name.replace(INVISIBLE, (character) => {
    const short = ESCAPES.get(character);
    return short ?? `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
  });
}

/** Spells a text as a literal of Python, which reads back as the same text, and in which nothing hides. */
export function pythonString(text: string): string {
  return JSON.stringify(text).replace(INVISIBLE, (character) => {
    const code = (character.codePointAt(0) ?? 0).toString(16);
    return code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
  });
}

/** Cuts a long text for a tooltip; style sheets cut it on the page. */
export function shorten(text: string, limit = 400): string {
  return text.length <= limit ? text : `${text.slice(0, limit - 1)}…`;
}
