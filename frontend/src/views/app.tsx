import type { AlertAnswer } from "../protocol.gen";
import type { State } from "../state";
import { Charts } from "./charts";
import { Details } from "./details";
import { Empty } from "./empty";
import { ReplayView } from "./replay";
import { Runs } from "./runs";
import { VerdictView } from "./verdict";

/** The page. */
export function App({ state }: { readonly state: State }) {
  return (
    <main class="page">
      <Failures failures={state.derived.failures.value} />
      <Body state={state} />
    </main>
  );
}

/** The requests that failed. The answers read before stay on the page below. */
function Failures({ failures }: { readonly failures: ReadonlyArray<string> }) {
  return (
    <div role="status" class="failures">
      {failures.map((failure) => (
        <p key={failure}>{failure}</p>
      ))}
    </div>
  );
}

function Body({ state }: { readonly state: State }) {
  const { answers, derived } = state;
  const runs = answers.verdicts.answer.value?.runs ?? null;
  const verdict = derived.verdict.value;
  if (runs === null)
    return answers.verdicts.failure.value === null ? <p class="note">Reading the runs…</p> : null;
  if (verdict === null || runs.every((run) => run.status === "empty")) return <Empty />;
  const alert = derived.alert.value;
  return (
    <>
      <VerdictView verdict={verdict} />
      <Runs state={state} runs={runs} />
      <div class="charts-column">
        {alert !== null && <ReplayView key={alertKey(alert)} alert={alert} />}
        {verdict.steps_seen === 0 ? (
          <p class="note">
            {verdict.status === "incomplete"
              ? "No step of this run could be read."
              : "This run has recorded nothing yet."}
          </p>
        ) : (
          <Charts state={state} />
        )}
        {alert !== null && <Details key={alertKey(alert)} alert={alert} first={verdict.first} />}
      </div>
    </>
  );
}

/** Identify an alert. With a new key, the details of another alert begin folded. */
function alertKey({ run, step }: AlertAnswer): string {
  return `${step} ${run}`;
}
