import type { ComponentChildren } from "preact";
import { formatStep, PHASE_LABELS, plural, shorten, visible } from "../format";
import type { Cause, Operation, Origin, Verdict, Warning } from "../protocol.gen";
import { STATUS_LABELS, STATUS_SHAPES } from "../runs";
import { Batch } from "./batch";
import { Name } from "./name";
import { SourcePlace } from "./source";

/** The verdict of the shown run: the first non-finite value, its likely cause, and what to do. */
export function VerdictView({ verdict }: { readonly verdict: Verdict }) {
  return (
    <section class={`verdict verdict-${verdict.status}`} aria-label="Verdict">
      <p class="verdict-head">
        <span class={`badge badge-${verdict.status}`} data-testid="verdict-status">
          <span aria-hidden="true">{STATUS_SHAPES[verdict.status]}</span> {STATUS_LABELS[verdict.status]}
        </span>
        <Name text={verdict.run} />
        <span class="muted number">{plural(verdict.steps_seen, "step")} watched</span>
        {verdict.skipped_steps > 0 && (
          <span class="muted number">{plural(verdict.skipped_steps, "skipped step")}</span>
        )}
      </p>
      <h1 class="sentence" data-testid="verdict">
        {visible(verdict.text)}
      </h1>
      {verdict.first !== null && <OriginFacts first={verdict.first} />}
      <Notes notes={verdict.notes} />
      {verdict.status === "nonfinite" && <Causes causes={verdict.causes} />}
      <Warnings warnings={verdict.warnings} />
      <Problems problems={verdict.problems} unreadable={verdict.unreadable} />
    </section>
  );
}

/** The facts beyond the sentence. An unknown fact is left out. */
function OriginFacts({ first }: { readonly first: Origin }) {
  return (
    <dl class="origin">
      <Fact label="Phase">{PHASE_LABELS[first.phase]}</Fact>
      {first.layer !== null && (
        <Fact label="Layer">
          <Name text={first.layer} />
        </Fact>
      )}
      {first.op !== null && (
        <Fact label="Operation">
          <OperationName op={first.op} />
        </Fact>
      )}
      {first.source !== null && (
        <Fact label="Source">
          <SourcePlace source={first.source} />
          <code class="source-text" dir="ltr">
            {shorten(visible(first.source.text.trim()), 200)}
          </code>
        </Fact>
      )}
      <Fact label="Evidence">{first.evidence === "replay" ? "seen in a replay" : "from the records"}</Fact>
      {placeText(first) !== "" && <Fact label="Where">{placeText(first)}</Fact>}
      {first.batch !== null && (first.entry === null || first.entry.way === "argument") && (
        <Fact label="Saved batch, from within the log directory">
          <Batch path={first.batch} />
        </Fact>
      )}
    </dl>
  );
}

function Fact({ label, children }: { readonly label: string; readonly children: ComponentChildren }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function OperationName({ op: { type, name } }: { readonly op: Operation }) {
  return (
    <>
      <Name text={type} />
      {name !== type && (
        <span class="muted">
          <Name text={name} />
        </span>
      )}
    </>
  );
}

function placeText({ replica, worker, microbatch }: Origin): string {
  const parts: ReadonlyArray<readonly [string, number | null]> = [
    ["replica", replica],
    ["worker", worker],
    ["micro-batch", microbatch],
  ];
  return parts.flatMap(([label, index]) => (index === null ? [] : [`${label} ${index}`])).join(", ");
}

/** What the replay reports in addition to the origin. */
function Notes({ notes }: { readonly notes: ReadonlyArray<string> }) {
  if (notes.length === 0) return null;
  return (
    <ul class="notes" data-testid="notes">
      {notes.map((note, index) => (
        <li key={index}>
          <p>{visible(note)}</p>
        </li>
      ))}
    </ul>
  );
}

function Causes({ causes }: { readonly causes: ReadonlyArray<Cause> }) {
  if (causes.length === 0) {
    return (
      <p class="causes-none muted">
        No likely cause was found: the evidence of this step matches no known cause.
      </p>
    );
  }
  return (
    <ul class="causes">
      {causes.map((cause) => (
        <li key={cause.id}>
          <p>
            <b>Likely cause</b> <span class="muted">({cause.confidence} confidence)</span>
            <br />
            {visible(cause.text)}
          </p>
          <p>
            <b>What to do</b>
            <br />
            {visible(cause.fix)}
          </p>
        </li>
      ))}
    </ul>
  );
}

function Warnings({ warnings }: { readonly warnings: ReadonlyArray<Warning> }) {
  if (warnings.length === 0) return null;
  return (
    <ul class="warnings">
      {warnings.map((warning) => (
        <li key={`${warning.kind} ${warning.first_step} ${warning.layer}`}>
          <span class="sign" aria-hidden="true">
            ▲
          </span>
          <p>
            <b>Warning, from step {formatStep(warning.first_step)}.</b> {visible(warning.text)}
          </p>
        </li>
      ))}
    </ul>
  );
}

interface ProblemsProps {
  readonly problems: ReadonlyArray<string>;
  readonly unreadable: ReadonlyArray<string>;
}

function Problems({ problems, unreadable }: ProblemsProps) {
  if (problems.length === 0) return null;
  return (
    <ul class="problems">
      {problems.map((problem) => (
        <li key={problem}>
          <p>
            <b>{unreadable.includes(problem) ? "Part of the log could not be read." : "About the log."}</b>{" "}
            {visible(problem)}
          </p>
        </li>
      ))}
    </ul>
  );
}
