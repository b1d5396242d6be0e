/** The list of runs: its order and filter, the run to show first, and status texts. Pure. */
import { formatStep, KIND_LABELS, plural } from "./format";
import type { Verdict } from "./protocol.gen";

export type RunOrder = "status" | "run" | "steps";

const URGENCY: Readonly<Record<Verdict["status"], number>> = {
  nonfinite: 0,
  incomplete: 1,
  warning: 2,
  finite: 3,
  empty: 4,
};
const byName = new Intl.Collator("en", { numeric: true });

const COMPARE: Readonly<Record<RunOrder, (a: Verdict, b: Verdict) => number>> = {
  status: (a, b) => URGENCY[a.status] - URGENCY[b.status],
  run: () => 0,
  steps: (a, b) => b.steps_seen - a.steps_seen,
};

/** Sort runs. Equal runs are sorted by name, where 9 comes before 10. */
export function sortRuns(runs: ReadonlyArray<Verdict>, order: RunOrder): ReadonlyArray<Verdict> {
  return [...runs].sort((a, b) => COMPARE[order](a, b) || byName.compare(a.run, b.run));
}

/** Keep the runs whose name and status hold every word of the filter, in any letter case. */
export function filterRuns(runs: ReadonlyArray<Verdict>, filter: string): ReadonlyArray<Verdict> {
  const words = filter.toLowerCase().split(/\s+/);
  return runs.filter((run) => {
    const text = `${run.run} ${STATUS_LABELS[run.status]}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** Return the most urgent run. Among equally urgent runs, prefer the shown run. */
export function mostUrgent(runs: ReadonlyArray<Verdict>, shown: string | null): Verdict | null {
  const first = sortRuns(runs, "status")[0] ?? null;
  return runs.find((run) => run.run === shown && run.status === first?.status) ?? first;
}

export const STATUS_LABELS: Readonly<Record<Verdict["status"], string>> = {
  nonfinite: "Non-finite",
  incomplete: "Incomplete",
  warning: "Warning",
  finite: "Finite",
  empty: "No data",
};

/** A shape for each status, so that it does not depend on colour alone. */
export const STATUS_SHAPES: Readonly<Record<Verdict["status"], string>> = {
  nonfinite: "✕",
  incomplete: "◇",
  warning: "▲",
  finite: "✓",
  empty: "○",
};

/** Format how many runs there are, and how many are non-finite or incomplete. */
export function summarizeRuns(runs: ReadonlyArray<Verdict>): string {
  const count = (status: Verdict["status"]) => runs.filter((run) => run.status === status).length;
  const [bad, incomplete] = [count("nonfinite"), count("incomplete")];
  const total =
    bad === 0 ? plural(runs.length, "run") : `${formatStep(bad)} of ${formatStep(runs.length)} non-finite`;
  return incomplete === 0 ? total : `${total}, ${formatStep(incomplete)} incomplete`;
}

/** Return a verdict's status in a few words. */
export function shortStatus(verdict: Verdict): string {
  const { first, warnings } = verdict;
  if (first !== null)
    return `${first.kind === null ? "Non-finite" : KIND_LABELS[first.kind]} at ${formatStep(first.step)}`;
  const warning = warnings[0];
  return warning === undefined || verdict.status === "incomplete"
    ? STATUS_LABELS[verdict.status]
    : `From ${formatStep(warning.first_step)}`;
}
