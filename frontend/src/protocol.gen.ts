// Generated from the records of tb_nanwatch/schema: change those, then run `make protocol`.
import * as decode from "./decoder";

export type StatKey =
  | "grad_norm"
  | "clipped_norm"
  | "clip_ratio"
  | "weight_norm"
  | "loss"
  | "global_norm"
  | "clipped_global_norm"
  | "loss_scale"
  | "skipped"
  | "microbatches"
  | "microbatch_norm"
  | "tensor_norm";

export interface Operation {
  readonly type: string;
  readonly name: string;
}

const operation = decode.record<Operation>({
  type: decode.string,
  name: decode.string,
});

export interface Source {
  readonly file: string;
  readonly line: number;
  readonly function: string;
  readonly text: string;
  readonly before: ReadonlyArray<string>;
  readonly after: ReadonlyArray<string>;
}

const source = decode.record<Source>({
  file: decode.string,
  line: decode.number,
  function: decode.string,
  text: decode.string,
  before: decode.list(decode.string),
  after: decode.list(decode.string),
});

export interface Counts {
  readonly size: number;
  readonly nan: number;
  readonly pos_inf: number;
  readonly neg_inf: number;
}

const counts = decode.record<Counts>({
  size: decode.number,
  nan: decode.number,
  pos_inf: decode.number,
  neg_inf: decode.number,
});

export interface Entry {
  readonly way: "argument" | "captured" | "constant";
  readonly shape: ReadonlyArray<number>;
  readonly elements: ReadonlyArray<ReadonlyArray<number>>;
}

const entry = decode.record<Entry>({
  way: decode.literal("argument", "captured", "constant"),
  shape: decode.list(decode.number),
  elements: decode.list(decode.list(decode.number)),
});

export interface Origin {
  readonly step: number;
  readonly phase: "input" | "weights" | "forward" | "loss" | "backward" | "clip" | "update" | "state";
  readonly layer: string | null;
  readonly variable: string | null;
  readonly tensor: string | null;
  readonly kind: "nan" | "pos_inf" | "neg_inf" | null;
  readonly op: Operation | null;
  readonly source: Source | null;
  readonly counts: Counts | null;
  readonly samples: ReadonlyArray<number>;
  readonly replica: number | null;
  readonly worker: number | null;
  readonly microbatch: number | null;
  readonly evidence: "replay" | "records";
  readonly batch: string | null;
  readonly entry: Entry | null;
}

const origin = decode.record<Origin>({
  step: decode.number,
  phase: decode.literal("input", "weights", "forward", "loss", "backward", "clip", "update", "state"),
  layer: decode.nullable(decode.string),
  variable: decode.nullable(decode.string),
  tensor: decode.nullable(decode.string),
  kind: decode.nullable(decode.literal("nan", "pos_inf", "neg_inf")),
  op: decode.nullable(operation),
  source: decode.nullable(source),
  counts: decode.nullable(counts),
  samples: decode.list(decode.number),
  replica: decode.nullable(decode.number),
  worker: decode.nullable(decode.number),
  microbatch: decode.nullable(decode.number),
  evidence: decode.literal("replay", "records"),
  batch: decode.nullable(decode.string),
  entry: decode.nullable(entry),
});

export interface Operand {
  readonly name: string;
  readonly dtype: string;
  readonly shape: ReadonlyArray<number>;
  readonly counts: Counts;
  readonly min: number | null;
  readonly max: number | null;
  readonly zeros: number;
}

const operand = decode.record<Operand>({
  name: decode.string,
  dtype: decode.string,
  shape: decode.list(decode.number),
  counts: counts,
  min: decode.nullable(decode.number),
  max: decode.nullable(decode.number),
  zeros: decode.number,
});

export interface Link {
  readonly op: Operation | null;
  readonly phase: "input" | "weights" | "forward" | "loss" | "backward" | "clip" | "update" | "state";
  readonly layer: string | null;
  readonly kind: "nan" | "pos_inf" | "neg_inf";
  readonly source: Source | null;
  readonly variable: string | null;
  readonly tensor: string | null;
  readonly counts: Counts | null;
  readonly samples: ReadonlyArray<number>;
  readonly inputs: ReadonlyArray<Operand>;
  readonly stack: ReadonlyArray<Source>;
  readonly entry: Entry | null;
}

const link = decode.record<Link>({
  op: decode.nullable(operation),
  phase: decode.literal("input", "weights", "forward", "loss", "backward", "clip", "update", "state"),
  layer: decode.nullable(decode.string),
  kind: decode.literal("nan", "pos_inf", "neg_inf"),
  source: decode.nullable(source),
  variable: decode.nullable(decode.string),
  tensor: decode.nullable(decode.string),
  counts: decode.nullable(counts),
  samples: decode.list(decode.number),
  inputs: decode.list(operand),
  stack: decode.list(source),
  entry: decode.nullable(entry),
});

export interface Warning {
  readonly kind: string;
  readonly first_step: number;
  readonly layer: string | null;
  readonly text: string;
}

const warning = decode.record<Warning>({
  kind: decode.string,
  first_step: decode.number,
  layer: decode.nullable(decode.string),
  text: decode.string,
});

export interface Cause {
  readonly id: string;
  readonly text: string;
  readonly fix: string;
  readonly confidence: "high" | "medium" | "low";
}

const cause = decode.record<Cause>({
  id: decode.string,
  text: decode.string,
  fix: decode.string,
  confidence: decode.literal("high", "medium", "low"),
});

export interface Verdict {
  readonly run: string;
  readonly status: "finite" | "nonfinite" | "warning" | "incomplete" | "empty";
  readonly text: string;
  readonly steps_seen: number;
  readonly first: Origin | null;
  readonly chain: ReadonlyArray<Link>;
  readonly other_chains: ReadonlyArray<ReadonlyArray<Link>>;
  readonly notes: ReadonlyArray<string>;
  readonly skipped_steps: number;
  readonly warnings: ReadonlyArray<Warning>;
  readonly causes: ReadonlyArray<Cause>;
  readonly problems: ReadonlyArray<string>;
  readonly unreadable: ReadonlyArray<string>;
}

const verdict = decode.record<Verdict>({
  run: decode.string,
  status: decode.literal("finite", "nonfinite", "warning", "incomplete", "empty"),
  text: decode.string,
  steps_seen: decode.number,
  first: decode.nullable(origin),
  chain: decode.list(link),
  other_chains: decode.list(decode.list(link)),
  notes: decode.list(decode.string),
  skipped_steps: decode.number,
  warnings: decode.list(warning),
  causes: decode.list(cause),
  problems: decode.list(decode.string),
  unreadable: decode.list(decode.string),
});

export interface Verdicts {
  readonly runs: ReadonlyArray<Verdict>;
  readonly schema: number;
}

const verdicts = decode.record<Verdicts>({
  runs: decode.list(verdict),
  schema: decode.number,
});

export interface Curve {
  readonly name: string;
  readonly min: ReadonlyArray<number | null>;
  readonly max: ReadonlyArray<number | null>;
  readonly mean: ReadonlyArray<number | null>;
  readonly kinds: ReadonlyArray<number>;
}

const curve = decode.record<Curve>({
  name: decode.string,
  min: decode.list(decode.nullable(decode.number)),
  max: decode.list(decode.nullable(decode.number)),
  mean: decode.list(decode.nullable(decode.number)),
  kinds: decode.list(decode.number),
});

export interface SeriesAnswer {
  readonly run: string;
  readonly session: number;
  readonly sessions: ReadonlyArray<number>;
  readonly first_step: ReadonlyArray<number>;
  readonly last_step: ReadonlyArray<number>;
  readonly curves: ReadonlyArray<Curve>;
  readonly tensors: ReadonlyArray<Curve>;
}

const seriesAnswer = decode.record<SeriesAnswer>({
  run: decode.string,
  session: decode.number,
  sessions: decode.list(decode.number),
  first_step: decode.list(decode.number),
  last_step: decode.list(decode.number),
  curves: decode.list(curve),
  tensors: decode.list(curve),
});

export interface HeatmapRow {
  readonly label: string;
  readonly layer: string | null;
  readonly variable: string | null;
}

const heatmapRow = decode.record<HeatmapRow>({
  label: decode.string,
  layer: decode.nullable(decode.string),
  variable: decode.nullable(decode.string),
});

export interface HeatmapAnswer {
  readonly run: string;
  readonly session: number;
  readonly sessions: ReadonlyArray<number>;
  readonly stat: string;
  readonly keeps: string;
  readonly rows: ReadonlyArray<HeatmapRow>;
  readonly first_step: ReadonlyArray<number>;
  readonly last_step: ReadonlyArray<number>;
  readonly values: ReadonlyArray<ReadonlyArray<number | null>>;
  readonly kinds: ReadonlyArray<ReadonlyArray<number>>;
}

const heatmapAnswer = decode.record<HeatmapAnswer>({
  run: decode.string,
  session: decode.number,
  sessions: decode.list(decode.number),
  stat: decode.string,
  keeps: decode.string,
  rows: decode.list(heatmapRow),
  first_step: decode.list(decode.number),
  last_step: decode.list(decode.number),
  values: decode.list(decode.list(decode.nullable(decode.number))),
  kinds: decode.list(decode.list(decode.number)),
});

export interface FindingRow {
  readonly role: "input" | "weight" | "tensor" | "loss" | "gradient" | "clipped" | "state" | "scalar";
  readonly name: string;
  readonly layer: string | null;
  readonly counts: Counts | null;
  readonly samples: ReadonlyArray<number>;
}

const findingRow = decode.record<FindingRow>({
  role: decode.literal("input", "weight", "tensor", "loss", "gradient", "clipped", "state", "scalar"),
  name: decode.string,
  layer: decode.nullable(decode.string),
  counts: decode.nullable(counts),
  samples: decode.list(decode.number),
});

export interface VariableRow {
  readonly name: string;
  readonly layer: string | null;
  readonly grad_norm: ReadonlyArray<number | null>;
  readonly clipped_norm: ReadonlyArray<number | null>;
  readonly weight_norm: ReadonlyArray<number | null>;
  readonly kinds: ReadonlyArray<number>;
}

const variableRow = decode.record<VariableRow>({
  name: decode.string,
  layer: decode.nullable(decode.string),
  grad_norm: decode.list(decode.nullable(decode.number)),
  clipped_norm: decode.list(decode.nullable(decode.number)),
  weight_norm: decode.list(decode.nullable(decode.number)),
  kinds: decode.list(decode.number),
});

export interface Replay {
  readonly outcome: "found" | "finite" | "failed";
  readonly notes: ReadonlyArray<string>;
  readonly chains: ReadonlyArray<ReadonlyArray<Link>>;
  readonly seconds: number;
  readonly dump: string | null;
}

const replay = decode.record<Replay>({
  outcome: decode.literal("found", "finite", "failed"),
  notes: decode.list(decode.string),
  chains: decode.list(decode.list(link)),
  seconds: decode.number,
  dump: decode.nullable(decode.string),
});

export interface AlertAnswer {
  readonly run: string;
  readonly step: number;
  readonly action: "raised" | "skipped" | "recorded";
  readonly findings: ReadonlyArray<FindingRow>;
  readonly steps: ReadonlyArray<number>;
  readonly loss: ReadonlyArray<number | null>;
  readonly variables: ReadonlyArray<VariableRow>;
  readonly replay: Replay | null;
  readonly batch: string | null;
}

const alertAnswer = decode.record<AlertAnswer>({
  run: decode.string,
  step: decode.number,
  action: decode.literal("raised", "skipped", "recorded"),
  findings: decode.list(findingRow),
  steps: decode.list(decode.number),
  loss: decode.list(decode.nullable(decode.number)),
  variables: decode.list(variableRow),
  replay: decode.nullable(replay),
  batch: decode.nullable(decode.string),
});

export const decodeVerdicts = decode.answer("verdicts", verdicts);
export const decodeSeries = decode.answer("series", seriesAnswer);
export const decodeHeatmap = decode.answer("heatmap", heatmapAnswer);
export const decodeAlert = decode.answer("alert", alertAnswer);
