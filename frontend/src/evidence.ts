/** The evidence of a bad step: its findings and norms in order, and its counts and samples as text. Pure. */
import { formatStep, formatSteps } from "./format";
import type { AlertAnswer, Counts, FindingRow, Origin, VariableRow } from "./protocol.gen";

const DATA_FLOW: ReadonlyArray<FindingRow["role"]> = [
  "input",
  "weight",
  "tensor",
  "loss",
  "gradient",
  "clipped",
  "scalar",
  "state",
];

/** Sort findings in the order of the data flow. Within a role, the finding that the verdict names comes first. */
export function sortFindings(
  findings: ReadonlyArray<FindingRow>,
  first: Origin | null,
): ReadonlyArray<FindingRow> {
  const named = first?.variable ?? first?.tensor ?? null;
  const rank = ({ role, name }: FindingRow): number => 2 * DATA_FLOW.indexOf(role) + (name === named ? 0 : 1);
  return [...findings].sort((a, b) => rank(a) - rank(b));
}

/** Put the variables that were bad in the last step first. Otherwise keep the model's order. */
export function sortVariables(rows: ReadonlyArray<VariableRow>): ReadonlyArray<VariableRow> {
  const isBad = (row: VariableRow): boolean => (row.kinds[row.kinds.length - 1] ?? 0) !== 0;
  return [...rows.filter(isBad), ...rows.filter((row) => !isBad(row))];
}

/** Format how many elements are NaN and Inf, and how many there are. */
export function countsText(counts: Counts | null): string {
  return counts === null ? "not counted" : `${nonfiniteText(counts)} of ${formatStep(counts.size)}`;
}

/** Format how many elements are NaN and Inf. */
export function nonfiniteText(counts: Counts): string {
  const parts = kindsSeen(counts).map(([label, count]) => `${formatStep(count)} ${label}`);
  return parts.length === 0 ? "none" : parts.join(", ");
}

/** A watch records at most this many bad samples of a step; there may be more. */
const MOST_SAMPLES = 64;
const MOST_RANGES = 8;

/** Format the bad samples of a batch, neighbours as a range. A long list is cut and ends with its length. */
export function samplesText(samples: ReadonlyArray<number>): string {
  const ranges = rangesOf(samples);
  const shown = ranges.slice(0, MOST_RANGES).join(", ");
  const total = `${formatStep(samples.length)} ${samples.length < MOST_SAMPLES ? "in all" : "or more"}`;
  if (ranges.length > MOST_RANGES) return `${shown}, … (${total})`;
  return samples.length < MOST_SAMPLES ? shown : `${shown} (${total})`;
}

function rangesOf(samples: ReadonlyArray<number>): ReadonlyArray<string> {
  const ranges: Array<[first: number, last: number]> = [];
  for (const sample of samples) {
    const last = ranges[ranges.length - 1];
    if (last?.[1] === sample - 1) last[1] = sample;
    else ranges.push([sample, sample]);
  }
  return ranges.flatMap(([first, last]) =>
    last - first === 1 ? [formatStep(first), formatStep(last)] : [formatSteps(first, last)],
  );
}

/** Return whether clipping changed any gradient in the steps of the alert. */
export function isClipped({ variables }: AlertAnswer): boolean {
  return variables.some(({ grad_norm, clipped_norm }) =>
    grad_norm.some((norm, index) => norm !== (clipped_norm[index] ?? null)),
  );
}

/** Name the kinds among the counted elements. */
export function countedKinds(counts: Counts | null): string {
  const labels = counts === null ? [] : kindsSeen(counts).map(([label]) => label);
  return labels.length === 0 ? "non-finite" : labels.join(", ");
}

function kindsSeen(counts: Counts): ReadonlyArray<readonly [label: string, count: number]> {
  const kinds: ReadonlyArray<readonly [string, number]> = [
    ["+Inf", counts.pos_inf],
    ["-Inf", counts.neg_inf],
    ["NaN", counts.nan],
  ];
  return kinds.filter(([, count]) => count > 0);
}
