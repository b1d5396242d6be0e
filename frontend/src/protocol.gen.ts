// Generated from the records of tb_nanwatch/schema: change those, then run `make protocol`.

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

export interface Stat {
  readonly key: StatKey;
  readonly scope: "variable" | "step" | "tensor";
  readonly merges: ReadonlyArray<"min" | "max" | "mean">;
  readonly meaning: string;
}

export const STATS: ReadonlyArray<Stat> = [
  { key: "grad_norm", scope: "variable", merges: ["min", "max", "mean"], meaning: "L2 norm of the gradient, before clipping." },
  { key: "clipped_norm", scope: "variable", merges: ["max", "mean"], meaning: "L2 norm of the gradient that the optimizer is given, after clipping." },
  { key: "clip_ratio", scope: "variable", merges: ["min", "mean"], meaning: "Norm after clipping over norm before; 1 where nothing is clipped, and where both are 0." },
  { key: "weight_norm", scope: "variable", merges: ["max"], meaning: "L2 norm of the variable itself, as the step began." },
  { key: "loss", scope: "step", merges: ["min", "max", "mean"], meaning: "The loss, as the training step gave it." },
  { key: "global_norm", scope: "step", merges: ["min", "max", "mean"], meaning: "L2 norm of all gradients together, before clipping." },
  { key: "clipped_global_norm", scope: "step", merges: ["max", "mean"], meaning: "L2 norm of all gradients together, after clipping." },
  { key: "loss_scale", scope: "step", merges: ["min", "max"], meaning: "What the loss was multiplied by, so that gradients in half precision do not vanish." },
  { key: "skipped", scope: "step", merges: ["max", "mean"], meaning: "1 where the update was left out: for an overflow of the scaled gradients, or by the policy; else 0." },
  { key: "microbatches", scope: "step", merges: ["min", "max"], meaning: "How many micro-batches the step accumulated." },
  { key: "microbatch_norm", scope: "variable", merges: ["max", "mean"], meaning: "L2 norm of the gradient of one micro-batch: the root of the mean square over those of the step." },
  { key: "tensor_norm", scope: "tensor", merges: ["min", "max", "mean"], meaning: "L2 norm of a tensor that the user chose to watch." },
];

export interface Verdicts {
  readonly runs: ReadonlyArray<Verdict>;
  readonly schema: number;
}

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

export interface Operation {
  readonly type: string;
  readonly name: string;
}

export interface Source {
  readonly file: string;
  readonly line: number;
  readonly function: string;
  readonly text: string;
  readonly before: ReadonlyArray<string>;
  readonly after: ReadonlyArray<string>;
}

export interface Counts {
  readonly size: number;
  readonly nan: number;
  readonly pos_inf: number;
  readonly neg_inf: number;
}

export interface Entry {
  readonly way: "argument" | "captured" | "constant";
  readonly shape: ReadonlyArray<number>;
  readonly elements: ReadonlyArray<ReadonlyArray<number>>;
}

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

export interface Operand {
  readonly name: string;
  readonly dtype: string;
  readonly shape: ReadonlyArray<number>;
  readonly counts: Counts;
  readonly min: number | null;
  readonly max: number | null;
  readonly zeros: number;
}

export interface Warning {
  readonly kind: "exploding" | "frozen" | "accumulated-sum" | "unfinished-step";
  readonly first_step: number;
  readonly layer: string | null;
  readonly text: string;
}

export interface Cause {
  readonly id: string;
  readonly text: string;
  readonly fix: string;
  readonly confidence: "high" | "medium" | "low";
}

export interface SeriesAnswer {
  readonly run: string;
  readonly session: number;
  readonly sessions: ReadonlyArray<number>;
  readonly first_step: ReadonlyArray<number>;
  readonly last_step: ReadonlyArray<number>;
  readonly curves: ReadonlyArray<Curve>;
  readonly tensors: ReadonlyArray<Curve>;
}

export interface Curve {
  readonly name: string;
  readonly min: ReadonlyArray<number | null>;
  readonly max: ReadonlyArray<number | null>;
  readonly mean: ReadonlyArray<number | null>;
  readonly kinds: ReadonlyArray<number>;
}

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

export interface HeatmapRow {
  readonly label: string;
  readonly layer: string | null;
  readonly variable: string | null;
}

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

export interface FindingRow {
  readonly role: "input" | "weight" | "tensor" | "loss" | "gradient" | "clipped" | "state" | "scalar";
  readonly name: string;
  readonly layer: string | null;
  readonly counts: Counts | null;
  readonly samples: ReadonlyArray<number>;
}

export interface VariableRow {
  readonly name: string;
  readonly layer: string | null;
  readonly grad_norm: ReadonlyArray<number | null>;
  readonly clipped_norm: ReadonlyArray<number | null>;
  readonly weight_norm: ReadonlyArray<number | null>;
  readonly kinds: ReadonlyArray<number>;
}

export interface Replay {
  readonly outcome: "found" | "finite" | "failed";
  readonly notes: ReadonlyArray<string>;
  readonly chains: ReadonlyArray<ReadonlyArray<Link>>;
  readonly seconds: number;
  readonly dump: string | null;
}

export interface BatchAnswer {
  readonly run: string;
  readonly step: number;
  readonly saved: boolean;
  readonly batch: string | null;
}
