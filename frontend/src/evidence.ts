/** The evidence of a bad step, in the order in which a person wants it. Pure. */
import { formatStep } from "./format";
import type { Counts, FindingRow, Origin, VariableRow } from "./protocol.gen";

const DATA_FLOW: ReadonlyArray<FindingRow["role"]> = [
  "input",
  "weight",
  "tensor",
  "loss",
  "gradient",
  "clipped",
];

/** Sorts findings as data flows through the step; of equals, the one that the verdict names comes first. */
export function sortFindings(
  findings: ReadonlyArray<FindingRow>,
  first: Origin | null,
): ReadonlyArray<FindingRow> {
  const named = first?.variable ?? first?.tensor ?? null;
  const rank = ({ role, name }: FindingRow): number => 2 * DATA_FLOW.indexOf(role) + (name === named ? 0 : 1);
  return [...findings].sort((a, b) => rank(a) - rank(b));
}

/** Sorts variables: those that were bad in the last step first, each part in the model's order. */
export function sortVariables(rows: ReadonlyArray<VariableRow>): ReadonlyArray<VariableRow> {
  const isBad = (row: VariableRow): boolean => (row.kinds[row.kinds.length - 1] ?? 0) !== 0;
  return [...rows.filter(isBad), ...rows.filter((row) => !isBad(row))];
}

/** Says how many elements were what, of how many. */
export function countsText(counts: Counts | null): string {
  if (counts === null) return "not counted";
  const seen = kindsSeen(counts).map(([label, count]) => `${formatStep(count)} ${label}`);
  return `${seen.join(", ")} of ${formatStep(counts.size)}`;
}

/** Names the kinds among the counted elements. */
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
