/** Checks the plugin's answers: what leaves this module has the type it claims. Pure. */
import type {
  AlertAnswer,
  Cause,
  Counts,
  Curve,
  FindingRow,
  HeatmapAnswer,
  HeatmapRow,
  Link,
  Operation,
  Origin,
  SeriesAnswer,
  Source,
  VariableRow,
  Verdict,
  Verdicts,
  Warning,
} from "./protocol.gen";

export type Decoder<T> = (value: unknown) => T;

/** An answer that is not what the protocol says. The path grows on the way out, so that decoding itself builds none. */
export class AnswerError extends Error {
  private path = "";

  constructor(
    private readonly expected: string,
    private readonly found: unknown,
  ) {
    super();
  }

  within(part: string): this {
    this.path = part + this.path;
    this.message = `The plugin's answer must hold ${this.expected} at ${this.path}; it holds ${describe(this.found)}. Reload the page: the plugin may have been updated.`;
    return this;
  }
}

function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null || typeof value === "number" || typeof value === "boolean") return String(value);
  return Array.isArray(value) ? "a list" : `a value of type ${typeof value}`;
}

const string: Decoder<string> = (value) => {
  if (typeof value === "string") return value;
  throw new AnswerError("a text", value);
};

const number: Decoder<number> = (value) => {
  if (typeof value === "number") return value;
  throw new AnswerError("a number", value);
};

function nullable<T>(inner: Decoder<T>): Decoder<T | null> {
  return (value) => (value === null ? null : inner(value));
}

function literal<T extends string>(...options: ReadonlyArray<T>): Decoder<T> {
  return (value) => {
    const found = options.find((option) => option === value);
    if (found !== undefined) return found;
    throw new AnswerError(`one of ${options.join(", ")}`, value);
  };
}

function list<T>(item: Decoder<T>): Decoder<ReadonlyArray<T>> {
  return (value) => {
    if (!Array.isArray(value)) throw new AnswerError("a list", value);
    return value.map((element, index) => inside(`[${index}]`, () => item(element)));
  };
}

function record<T>(fields: { readonly [K in keyof T]: Decoder<T[K]> }): Decoder<T> {
  const keys = Object.keys(fields) as Array<keyof T & string>;
  return (value) => {
    if (typeof value !== "object" || value === null) throw new AnswerError("a record", value);
    const given = value as Partial<Record<string, unknown>>;
    const decoded: Partial<T> = {};
    for (const key of keys) decoded[key] = inside(`.${key}`, () => fields[key](given[key]));
    return decoded as T;
  };
}

function inside<T>(part: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw error instanceof AnswerError ? error.within(part) : error;
  }
}

const integers = list(number);
const numbers = list(nullable(number));

const counts = record<Counts>({ size: number, nan: number, pos_inf: number, neg_inf: number });
const operation = record<Operation>({ type: string, name: string });
const source = record<Source>({ file: string, line: number, function: string, text: string });
const kind = literal("nan", "pos_inf", "neg_inf");
const phase = literal("input", "weights", "forward", "loss", "backward", "clip", "update", "state");

const origin = record<Origin>({
  step: number,
  phase,
  layer: nullable(string),
  variable: nullable(string),
  tensor: nullable(string),
  kind: nullable(kind),
  op: nullable(operation),
  source: nullable(source),
  counts: nullable(counts),
  samples: integers,
  replica: nullable(number),
  worker: nullable(number),
  microbatch: nullable(number),
  evidence: literal("replay", "records"),
  batch: nullable(string),
});

const link = record<Link>({
  op: operation,
  phase,
  layer: nullable(string),
  kind,
  source: nullable(source),
});

const warning = record<Warning>({
  kind: literal("exploding", "frozen"),
  first_step: number,
  layer: nullable(string),
  text: string,
});

const cause = record<Cause>({
  id: string,
  text: string,
  fix: string,
  confidence: literal("high", "medium", "low"),
});

const verdict = record<Verdict>({
  run: string,
  status: literal("finite", "nonfinite", "warning", "empty"),
  text: string,
  steps_seen: number,
  first: nullable(origin),
  chain: list(link),
  skipped_steps: number,
  warnings: list(warning),
  causes: list(cause),
  problems: list(string),
});

const curve = record<Curve>({ name: string, min: numbers, max: numbers, mean: numbers, kinds: integers });
const row = record<HeatmapRow>({ label: string, layer: nullable(string), variable: nullable(string) });

const finding = record<FindingRow>({
  role: literal("input", "weight", "tensor", "loss", "gradient", "clipped"),
  name: string,
  layer: nullable(string),
  counts: nullable(counts),
  samples: integers,
});

const variable = record<VariableRow>({
  name: string,
  layer: nullable(string),
  grad_norm: numbers,
  clipped_norm: numbers,
  weight_norm: numbers,
  kinds: integers,
});

const verdicts = record<Verdicts>({ runs: list(verdict), schema: number });

const series = record<SeriesAnswer>({
  run: string,
  first_step: integers,
  last_step: integers,
  curves: list(curve),
  tensors: list(curve),
  session: number,
  sessions: integers,
});

const heatmap = record<HeatmapAnswer>({
  run: string,
  stat: string,
  keeps: string,
  rows: list(row),
  first_step: integers,
  last_step: integers,
  values: list(numbers),
  kinds: list(integers),
  session: number,
  sessions: integers,
});

const alert = record<AlertAnswer>({
  run: string,
  step: number,
  action: literal("raised", "recorded"),
  findings: list(finding),
  steps: integers,
  loss: numbers,
  variables: list(variable),
});

export const decodeVerdicts: Decoder<Verdicts> = (value) => inside("verdicts", () => verdicts(value));
export const decodeSeries: Decoder<SeriesAnswer> = (value) => inside("series", () => series(value));
export const decodeHeatmap: Decoder<HeatmapAnswer> = (value) => inside("heatmap", () => heatmap(value));
export const decodeAlert: Decoder<AlertAnswer> = (value) => inside("alert", () => alert(value));
