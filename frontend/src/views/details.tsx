import type { Signal } from "@preact/signals";
import { useSignal } from "@preact/signals";
import { formatStep, formatValue, plural, ROLE_LABELS } from "../format";
import type { AlertAnswer, Counts, FindingRow, VariableRow } from "../protocol.gen";
import { Choice } from "./choice";
import { Name } from "./name";

/** What was recorded around the first bad step. */
export function Details({ alert }: { readonly alert: AlertAnswer }) {
  return (
    <section class="details" aria-label="Details of the bad step">
      <div class="bar">
        <h2>Step {formatStep(alert.step)} in detail</h2>
        <span class="muted">
          {alert.action === "raised"
            ? "training was stopped, the update withheld"
            : "recorded, training went on"}
        </span>
      </div>
      <Findings findings={alert.findings} />
      {alert.variables.length > 0 && <Norms alert={alert} />}
    </section>
  );
}

function Findings({ findings }: { readonly findings: ReadonlyArray<FindingRow> }) {
  return (
    <div class="table-scroll" data-testid="findings">
      <table class="grid">
        <caption>What was non-finite</caption>
        <thead>
          <tr>
            <th scope="col">What</th>
            <th scope="col">Name</th>
            <th scope="col">Non-finite elements</th>
            <th scope="col">Samples</th>
          </tr>
        </thead>
        <tbody>
          {findings.map((finding) => (
            <tr key={`${finding.role} ${finding.name}`}>
              <td>{ROLE_LABELS[finding.role]}</td>
              <td>
                <Name text={finding.name} />
              </td>
              <td class="number">{finding.counts === null ? "not counted" : countsText(finding.counts)}</td>
              <td class="number">{finding.samples.length === 0 ? "–" : finding.samples.join(", ")}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function countsText(counts: Counts): string {
  const seen = kindsSeen(counts).map(([label, count]) => `${formatStep(count)} ${label}`);
  return `${seen.join(", ")} of ${formatStep(counts.size)}`;
}

function kindsSeen(counts: Counts): ReadonlyArray<readonly [label: string, count: number]> {
  const kinds: ReadonlyArray<readonly [string, number]> = [
    ["+Inf", counts.pos_inf],
    ["-Inf", counts.neg_inf],
    ["NaN", counts.nan],
  ];
  return kinds.filter(([, count]) => count > 0);
}

type NormKey = "grad_norm" | "clipped_norm" | "weight_norm";

const NORMS: ReadonlyArray<{ readonly value: NormKey; readonly label: string }> = [
  { value: "grad_norm", label: "Gradient norm" },
  { value: "clipped_norm", label: "After clipping" },
  { value: "weight_norm", label: "Weight norm" },
];

const LAST_STEPS = 6;
const FIRST_ROWS = 40;

/** The last steps' norms, variable by variable; those that went bad come first. */
function Norms({ alert }: { readonly alert: AlertAnswer }) {
  const norm = useSignal<NormKey>("grad_norm");
  const isWhole = useSignal(false);
  const from = Math.max(0, alert.steps.length - LAST_STEPS);
  const rows = badFirst(alert.variables);
  const shown = isWhole.value ? rows : rows.slice(0, FIRST_ROWS);
  return (
    <>
      <div class="bar bar-table">
        <h3>The last {plural(alert.steps.length - from, "step")}, by variable</h3>
        <span class="spring" />
        <Choice name="Norm" options={NORMS} value={norm.value} onChoose={(value) => setValue(norm, value)} />
      </div>
      <div class="table-scroll">
        <table class="grid grid-numbers">
          <thead>
            <tr>
              <th scope="col">Variable</th>
              {alert.steps.slice(from).map((step) => (
                <th scope="col" key={step} class={step === alert.step ? "number bad" : "number"}>
                  {formatStep(step)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <LossRow alert={alert} from={from} />
            {shown.map((row) => (
              <NormRow key={row.name} row={row} norm={norm.value} from={from} />
            ))}
          </tbody>
        </table>
      </div>
      {shown.length < rows.length && (
        <button type="button" onClick={() => setValue(isWhole, true)}>
          Show all {formatStep(rows.length)} variables
        </button>
      )}
    </>
  );
}

function setValue<T>(signal: Signal<T>, value: T): void {
  signal.value = value;
}

function badFirst(rows: ReadonlyArray<VariableRow>): ReadonlyArray<VariableRow> {
  const isBad = (row: VariableRow): boolean => (row.kinds[row.kinds.length - 1] ?? 0) !== 0;
  return [...rows.filter(isBad), ...rows.filter((row) => !isBad(row))];
}

function LossRow({ alert, from }: { readonly alert: AlertAnswer; readonly from: number }) {
  return (
    <tr class="row-loss">
      <th scope="row">loss</th>
      {alert.steps.slice(from).map((step, index) => {
        const value = alert.loss[from + index] ?? null;
        const found = step === alert.step ? alert.findings.find(({ role }) => role === "loss") : undefined;
        return (
          <td class={found === undefined ? "number" : "number bad"} key={step}>
            {found === undefined ? formatValue(value) : lossText(found)}
          </td>
        );
      })}
    </tr>
  );
}

function lossText({ counts }: FindingRow): string {
  const labels = counts === null ? [] : kindsSeen(counts).map(([label]) => label);
  return labels.length === 0 ? "non-finite" : labels.join(", ");
}

interface NormRowProps {
  readonly row: VariableRow;
  readonly norm: NormKey;
  readonly from: number;
}

function NormRow({ row, norm, from }: NormRowProps) {
  return (
    <tr>
      <th scope="row">
        <Name text={row.name} />
      </th>
      {row.kinds.slice(from).map((kinds, index) => {
        const value = row[norm][from + index] ?? null;
        const isBad = value === null && kinds !== 0;
        return (
          <td key={index} class={isBad ? "number bad" : "number"}>
            {formatValue(value, isBad ? kinds : 0)}
          </td>
        );
      })}
    </tr>
  );
}
