import { countsText, samplesText, sortFindings } from "../evidence";
import { formatStep, NO_VALUE, ROLE_LABELS } from "../format";
import type { AlertAnswer, FindingRow, Origin } from "../protocol.gen";
import { useBeginning } from "./controls";
import { Name } from "./name";
import { Norms } from "./norms";

interface DetailsProps {
  readonly alert: AlertAnswer;
  readonly first: Origin | null;
}

const ACTIONS: Readonly<Record<AlertAnswer["action"], string>> = {
  raised: "training was stopped",
  skipped: "the update was left out, training went on",
  recorded: "recorded, training went on",
};

/** The records of the first bad step and the steps before it. */
export function Details({ alert, first }: DetailsProps) {
  return (
    <section class="details" aria-label="Details of the bad step">
      <div class="bar">
        <h2>Step {formatStep(alert.step)} in detail</h2>
        <span class="muted">{ACTIONS[alert.action]}</span>
      </div>
      <Findings findings={sortFindings(alert.findings, first)} />
      {alert.variables.length > 0 && <Norms alert={alert} />}
    </section>
  );
}

const FIRST_FINDINGS = 8;

function Findings({ findings }: { readonly findings: ReadonlyArray<FindingRow> }) {
  const { shown, showAll } = useBeginning(findings, FIRST_FINDINGS);
  const hasSamples = findings.some(({ samples }) => samples.length > 0);
  return (
    <div data-testid="findings">
      <div class="table-scroll">
        <table class="grid">
          <caption>What was non-finite, in the order of the data flow</caption>
          <thead>
            <tr>
              <th scope="col">What</th>
              <th scope="col">Name</th>
              <th scope="col">Elements</th>
              {hasSamples && <th scope="col">Samples of the batch</th>}
            </tr>
          </thead>
          <tbody>
            {shown.map((finding) => (
              <Finding key={`${finding.role} ${finding.name}`} finding={finding} hasSamples={hasSamples} />
            ))}
          </tbody>
        </table>
      </div>
      {showAll}
    </div>
  );
}

function Finding({ finding, hasSamples }: { readonly finding: FindingRow; readonly hasSamples: boolean }) {
  const { role, name, counts, samples } = finding;
  return (
    <tr>
      <td>{ROLE_LABELS[role]}</td>
      <td>
        <Name text={name} />
      </td>
      <td class="number">{countsText(counts)}</td>
      {hasSamples && <td class="number samples">{samples.length === 0 ? NO_VALUE : samplesText(samples)}</td>}
    </tr>
  );
}
