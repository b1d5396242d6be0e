/** Checks the plugin's answers: what leaves this module has the type it claims. Pure. */
import { type Decoder, inside, list, literal, nullable, number, record, string } from "./decoder";
import type {
  AlertAnswer,
  Cause,
  Counts,
  Curve,
  Entry,
  FindingRow,
  HeatmapAnswer,
  HeatmapRow,
  Link,
  Operand,
  Operation,
  Origin,
  Replay,
  SeriesAnswer,
  Source,
  VariableRow,
  Verdict,
  Verdicts,
  Warning,
} from "./protocol.gen";

const integers = list(number);
const numbers = list(nullable(number));

const counts = record<Counts>({ size: number, nan: number, pos_inf: number, neg_inf: number });
const operation = record<Operation>({ type: string, name: string });
const source = record<Source>({
  file: string,
  line: number,
  function: string,
  text: string,
  before: list(string),
  after: list(string),
});
const kind = literal<Link["kind"]>({ nan: true, pos_inf: true, neg_inf: true });
const phase = literal<Link["phase"]>({
  input: true,
  weights: true,
  forward: true,
  loss: true,
  backward: true,
  clip: true,
  update: true,
  state: true,
});

const entry = record<Entry>({
  way: literal<Entry["way"]>({ argument: true, captured: true, constant: true }),
  shape: integers,
  elements: list(integers),
});

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
  evidence: literal<Origin["evidence"]>({ replay: true, records: true }),
  batch: nullable(string),
  entry: nullable(entry),
});

const operand = record<Operand>({
  name: string,
  dtype: string,
  shape: integers,
  counts,
  min: nullable(number),
  max: nullable(number),
  zeros: number,
});

const link = record<Link>({
  op: nullable(operation),
  phase,
  layer: nullable(string),
  kind,
  source: nullable(source),
  variable: nullable(string),
  tensor: nullable(string),
  counts: nullable(counts),
  samples: integers,
  inputs: list(operand),
  stack: list(source),
  entry: nullable(entry),
});

const chain = list(link);

const warning = record<Warning>({
  kind: literal<Warning["kind"]>({
    exploding: true,
    frozen: true,
    "accumulated-sum": true,
    "unfinished-step": true,
  }),
  first_step: number,
  layer: nullable(string),
  text: string,
});

const cause = record<Cause>({
  id: string,
  text: string,
  fix: string,
  confidence: literal<Cause["confidence"]>({ high: true, medium: true, low: true }),
});

const verdict = record<Verdict>({
  run: string,
  status: literal<Verdict["status"]>({
    finite: true,
    nonfinite: true,
    warning: true,
    incomplete: true,
    empty: true,
  }),
  text: string,
  steps_seen: number,
  first: nullable(origin),
  chain,
  other_chains: list(chain),
  notes: list(string),
  skipped_steps: number,
  warnings: list(warning),
  causes: list(cause),
  problems: list(string),
  unreadable: list(string),
});

const curve = record<Curve>({ name: string, min: numbers, max: numbers, mean: numbers, kinds: integers });
const row = record<HeatmapRow>({ label: string, layer: nullable(string), variable: nullable(string) });

const finding = record<FindingRow>({
  role: literal<FindingRow["role"]>({
    input: true,
    weight: true,
    tensor: true,
    loss: true,
    gradient: true,
    clipped: true,
    state: true,
    scalar: true,
  }),
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

const replay = record<Replay>({
  outcome: literal<Replay["outcome"]>({ found: true, finite: true, failed: true }),
  notes: list(string),
  chains: list(chain),
  seconds: number,
  dump: nullable(string),
});

const alert = record<AlertAnswer>({
  run: string,
  step: number,
  action: literal<AlertAnswer["action"]>({ raised: true, skipped: true, recorded: true }),
  findings: list(finding),
  steps: integers,
  loss: numbers,
  variables: list(variable),
  replay: nullable(replay),
  batch: nullable(string),
});

export const decodeVerdicts: Decoder<Verdicts> = (value) => inside("verdicts", () => verdicts(value));
export const decodeSeries: Decoder<SeriesAnswer> = (value) => inside("series", () => series(value));
export const decodeHeatmap: Decoder<HeatmapAnswer> = (value) => inside("heatmap", () => heatmap(value));
export const decodeAlert: Decoder<AlertAnswer> = (value) => inside("alert", () => alert(value));
