/** Small answers of the plugin, which tests vary. */
import type {
  AlertAnswer,
  HeatmapAnswer,
  Link,
  Operand,
  Origin,
  SeriesAnswer,
  Source,
  Verdict,
} from "../src/protocol.gen";

export const ORIGIN: Origin = {
  step: 411,
  phase: "backward",
  layer: "l3_1",
  variable: "l3_1/V",
  tensor: null,
  kind: "pos_inf",
  op: null,
  source: null,
  counts: { size: 64, nan: 0, pos_inf: 3, neg_inf: 0 },
  samples: [],
  replica: null,
  worker: null,
  microbatch: null,
  evidence: "records",
  batch: null,
  entry: null,
};

export const FINITE: Verdict = {
  run: "tanh",
  status: "finite",
  text: "Finite in all 1,000 steps.",
  steps_seen: 1000,
  first: null,
  chain: [],
  other_chains: [],
  notes: [],
  skipped_steps: 0,
  warnings: [],
  causes: [],
  problems: [],
  unreadable: [],
};

export const NONFINITE: Verdict = {
  ...FINITE,
  run: "relu",
  status: "nonfinite",
  text: "Step 411: +Inf first appeared in the gradient of l3_1/V, in the backward pass (3 of 64 elements).",
  steps_seen: 412,
  first: ORIGIN,
};

/** Two layers by three columns: steps 0 to 99, 100 to 199, 200 to 411. */
export const HEATMAP: HeatmapAnswer = {
  run: "relu",
  session: 0,
  sessions: [0],
  stat: "grad_norm",
  keeps: "max",
  rows: [
    { label: "l3", layer: "l3", variable: null },
    { label: "l3_1", layer: "l3_1", variable: null },
  ],
  first_step: [0, 100, 200],
  last_step: [99, 199, 411],
  values: [
    [1, 10, 100],
    [0, null, 1000],
  ],
  kinds: [
    [0, 0, 0],
    [0, 0, 3],
  ],
};

export const SERIES: SeriesAnswer = {
  run: "relu",
  session: 0,
  sessions: [0],
  first_step: [0, 200],
  last_step: [199, 411],
  curves: [
    { name: "loss", min: [0.1, 0.2], max: [0.5, 9], mean: [0.3, 1], kinds: [0, 2] },
    { name: "global_norm", min: [1, 2], max: [3, 4], mean: [2, 3], kinds: [0, 0] },
    { name: "clipped_global_norm", min: [], max: [3, 4], mean: [2, 3], kinds: [0, 0] },
    { name: "clip_ratio", min: [1, 1], max: [], mean: [1, 1], kinds: [0, 0] },
  ],
  tensors: [],
};

export const SOURCE: Source = {
  file: "critic.py",
  line: 41,
  function: "train_step",
  text: "loss = tf.square(error)",
  before: ["    with tf.GradientTape() as tape:"],
  after: ["", "    return loss"],
};

export const OPERAND: Operand = {
  name: "sub:0",
  dtype: "float32",
  shape: [64, 1],
  counts: { size: 64, nan: 0, pos_inf: 0, neg_inf: 0 },
  min: -2.5e19,
  max: null,
  zeros: 0,
};

export const LINK: Link = {
  op: { type: "Square", name: "train_step/Square" },
  phase: "loss",
  layer: null,
  kind: "pos_inf",
  source: SOURCE,
  variable: null,
  tensor: null,
  counts: { size: 64, nan: 0, pos_inf: 3, neg_inf: 0 },
  samples: [7, 31, 50],
  inputs: [OPERAND],
  stack: [SOURCE],
  entry: null,
};

export const ALERT: AlertAnswer = {
  run: "relu",
  step: 411,
  action: "raised",
  findings: [{ role: "gradient", name: "l3_1/V", layer: "l3_1", counts: ORIGIN.counts, samples: [] }],
  steps: [410, 411],
  loss: [0.5, null],
  variables: [
    {
      name: "l3_1/V",
      layer: "l3_1",
      grad_norm: [1, null],
      clipped_norm: [1, null],
      weight_norm: [3, 3],
      kinds: [0, 2],
    },
  ],
  replay: null,
  batch: null,
};
