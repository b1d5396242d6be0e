import { useMemo } from "preact/hooks";
import { showRun } from "../actions";
import { plural } from "../format";
import type { Verdict } from "../protocol.gen";
import {
  filterRuns,
  type RunOrder,
  STATUS_LABELS,
  STATUS_SHAPES,
  shortStatus,
  sortRuns,
  summarizeRuns,
} from "../runs";
import type { State } from "../state";
import { Choice } from "./controls";
import { Name } from "./name";

/** With this many runs, finding a run by eye gets slow. */
const FILTER_FROM = 6;

/** The runs and their statuses. */
export function Runs({ state, runs }: { readonly state: State; readonly runs: ReadonlyArray<Verdict> }) {
  const { filter, order } = state.choices;
  const shown = useMemo(
    () => sortRuns(filterRuns(runs, filter.value), order.value),
    [runs, filter.value, order.value],
  );
  return (
    <section class="runs" aria-label="Runs">
      <div class="bar">
        <h2>Runs</h2>
        <span class="muted number">{summarizeRuns(runs)}</span>
      </div>
      {runs.length >= FILTER_FROM && <Finder state={state} matches={shown.length} />}
      <ul class="runs-list">
        {shown.map((run) => (
          <Row key={run.run} state={state} verdict={run} />
        ))}
      </ul>
    </section>
  );
}

const ORDERS: ReadonlyArray<{ readonly value: RunOrder; readonly label: string }> = [
  { value: "status", label: "Status" },
  { value: "run", label: "Name" },
  { value: "steps", label: "Steps" },
];

/** The filter and the order of the runs. */
function Finder({ state, matches }: { readonly state: State; readonly matches: number }) {
  const { filter, order } = state.choices;
  return (
    <div class="finder">
      <input
        type="search"
        placeholder="Filter by name or status"
        aria-label="Filter runs"
        value={filter.value}
        onInput={(event) => {
          filter.value = event.currentTarget.value;
        }}
      />
      <Choice name="Sort runs by" options={ORDERS} chosen={order} />
      {matches === 0 && <p class="muted">No run matches.</p>}
    </div>
  );
}

function Row({ state, verdict }: { readonly state: State; readonly verdict: Verdict }) {
  const isShown = state.derived.verdict.value?.run === verdict.run;
  return (
    <li>
      <button
        type="button"
        class={isShown ? "run run-shown" : "run"}
        data-testid="run-row"
        data-run={verdict.run}
        aria-current={isShown}
        onClick={() => showRun(state, verdict.run)}
      >
        <span class={`shape shape-${verdict.status}`} role="img" aria-label={STATUS_LABELS[verdict.status]}>
          {STATUS_SHAPES[verdict.status]}
        </span>
        <Name text={verdict.run} />
        <span class={`run-status text-${verdict.status}`}>{shortStatus(verdict)}</span>
        <span class="run-steps number">{plural(verdict.steps_seen, "step")}</span>
      </button>
    </li>
  );
}
