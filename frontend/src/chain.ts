/** The chain that a replay found, as text: places, source lines and operands, and which of many hops are shown. Pure. */
import { formatStep, shorten, visible } from "./format";
import type { Counts, Entry, Link, Operand, Source } from "./protocol.gen";

/** What a hop names: the operation, or where no operation ran, the variable or argument that held the value. */
export interface Place {
  /** The sort of thing that is named; empty for an operation, whose name says it. */
  readonly label: string;
  readonly name: string;
  /** The operation's name in the graph, if it differs from the operation's type. */
  readonly detail: string;
}

const ENTRIES: Readonly<Record<Entry["way"], string>> = {
  argument: "Argument",
  captured: "Captured tensor",
  constant: "Constant",
};

export function placeOf({ op, phase, tensor, variable, entry }: Link): Place {
  if (op !== null) return { label: "", name: op.type, detail: op.name === op.type ? "" : op.name };
  if (variable !== null) return { label: "Variable", name: variable, detail: "" };
  const label = entry === null ? "Argument" : ENTRIES[entry.way];
  if (tensor !== null) return { label, name: tensor, detail: "" };
  return { label: phase === "input" && entry !== null ? label : "Not known", name: "", detail: "" };
}

/** A long chain whose middle is hidden at first. */
export interface Folded<T> {
  readonly head: ReadonlyArray<T>;
  readonly hidden: ReadonlyArray<T>;
  readonly tail: ReadonlyArray<T>;
}

const HEAD = 5;
const TAIL = 2;

/** Fold the middle of a list. A single hidden entry would not be worth a button. */
export function folded<T>(entries: ReadonlyArray<T>): Folded<T> {
  if (entries.length <= HEAD + TAIL + 1) return { head: entries, hidden: [], tail: [] };
  return {
    head: entries.slice(0, HEAD),
    hidden: entries.slice(HEAD, -TAIL),
    tail: entries.slice(-TAIL),
  };
}

export interface ExcerptLine {
  readonly number: number;
  readonly text: string;
  readonly isMarked: boolean;
}

const INDENT = 4;
const LONGEST_LINE = 300;

/** Number a source line and the lines around it, and remove the indent that all of them share. */
export function excerpt(source: Source): ReadonlyArray<ExcerptLine> {
  const marked = " ".repeat(markedIndent(source)) + source.text.trim();
  const lines = [...source.before, marked, ...source.after].map(expanded);
  const shared = Math.min(...lines.filter((line) => line.trim() !== "").map(indentOf));
  const first = source.line - source.before.length;
  return lines.map((line, index) => ({
    number: first + index,
    text: shorten(visible(line.slice(shared).trimEnd()), LONGEST_LINE),
    isMarked: index === source.before.length,
  }));
}

function expanded(line: string): string {
  return line.replace(/\t/g, " ".repeat(INDENT));
}

function indentOf(line: string): number {
  const whole = expanded(line);
  return whole.length - whole.trimStart().length;
}

/** Infer the indent of the source line from its neighbours: the plugin sends the line without its indent. */
function markedIndent({ before, text, after }: Source): number {
  const isCode = (line: string): boolean => line.trim() !== "";
  const above = [...before].reverse().find(isCode);
  const below = after.find(isCode);
  const opens = text.trimEnd().endsWith(":");
  if (below !== undefined && (above === undefined || opens))
    return Math.max(0, indentOf(below) - (opens ? INDENT : 0));
  if (above === undefined) return 0;
  return indentOf(above) + (above.trimEnd().endsWith(":") ? INDENT : 0);
}

const LONGEST_FILE = 60;

/** Return file and line. A long path is cut at its beginning, since its end names the file. */
export function sourcePlace({ file, line }: Source): string {
  const shown = visible(file);
  const end = shown.length <= LONGEST_FILE ? shown : `…${shown.slice(1 - LONGEST_FILE)}`;
  return `${end}:${line}`;
}

/** Return the function that holds a line; empty for a line at the top level of a script. */
export function sourceFunction(source: Source): string {
  return source.function === "<module>" ? "" : visible(source.function);
}

const LONGEST_TYPE = 40;

/** Format an operand's dtype and shape. */
export function operandType({ dtype, shape }: Operand): string {
  const size = shape.length === 0 ? "scalar" : `[${shape.join(", ")}]`;
  return `${shorten(visible(dtype), LONGEST_TYPE)} ${shorten(size, LONGEST_TYPE)}`;
}

/** Format how many elements of an operand are 0, and say so if all are. */
export function zerosText({ zeros, counts }: Operand): string {
  return zeros > 1 && zeros === counts.size ? `all ${formatStep(zeros)}` : formatStep(zeros);
}

export function isAllFinite({ nan, pos_inf, neg_inf }: Counts): boolean {
  return nan + pos_inf + neg_inf === 0;
}
