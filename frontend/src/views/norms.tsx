import { useSignal } from "@preact/signals";
import { countedKinds, isClipped, sortVariables } from "../evidence";
import { formatStep, formatValue, plural } from "../format";
import { type HeatmapStat, isInformative, statLabel } from "../heatmap_stats";
import type { AlertAnswer, VariableRow } from "../protocol.gen";
import { Choice, useBeginning } from "./controls";
import { Name } from "./name";

type NormKey = keyof VariableRow & HeatmapStat;

const NORMS: ReadonlyArray<NormKey> = ["grad_norm", "clipped_norm", "weight_norm"];

const LAST_STEPS = 6;
/** A narrow window has space for this many of them. */
const NARROW_STEPS = 3;
const FIRST_VARIABLES = 40;

/** The norms of the last steps, variable by variable. */
export function Norms({ alert }: { readonly alert: AlertAnswer }) {
  const norm = useSignal<NormKey>("grad_norm");
  const from = Math.max(0, alert.steps.length - LAST_STEPS);
  const rows = sortVariables(alert.variables);
  const { shown, showAll } = useBeginning(rows, FIRST_VARIABLES, "variables");
  return (
    <>
      <div class="bar bar-table">
        <h3>The last {plural(alert.steps.length - from, "step")}, by variable</h3>
        <span class="spring" />
        <Choice name="Norm" options={normOptions(isClipped(alert))} chosen={norm} />
      </div>
      <div class="table-scroll">
        <table class="grid grid-numbers">
          <Head steps={alert.steps.slice(from)} badStep={alert.step} />
          <tbody>
            <LossRow alert={alert} from={from} />
            {shown.map((row) => (
              <NormRow key={row.name} row={row} norm={norm.value} from={from} />
            ))}
          </tbody>
        </table>
      </div>
      {showAll}
    </>
  );
}

function normOptions(clips: boolean) {
  return NORMS.filter((norm) => isInformative(norm, clips)).map((norm) => ({
    value: norm,
    label: statLabel(norm),
  }));
}

function Head({ steps, badStep }: { readonly steps: ReadonlyArray<number>; readonly badStep: number }) {
  return (
    <thead>
      <tr>
        <th scope="col">Variable</th>
        {steps.map((step, index) => (
          <th scope="col" key={step} class={cellClass(index, steps.length, step === badStep)}>
            {formatStep(step)}
          </th>
        ))}
      </tr>
    </thead>
  );
}

function cellClass(index: number, columns: number, isBad: boolean): string {
  return `number${isBad ? " bad" : ""}${index < columns - NARROW_STEPS ? " early" : ""}`;
}

function LossRow({ alert, from }: { readonly alert: AlertAnswer; readonly from: number }) {
  const steps = alert.steps.slice(from);
  const found = alert.findings.find(({ role }) => role === "loss");
  return (
    <tr class="row-loss">
      <th scope="row">loss</th>
      {steps.map((step, index) => {
        const isBad = step === alert.step && found !== undefined;
        const value = alert.loss[from + index] ?? null;
        return (
          <td class={cellClass(index, steps.length, isBad)} key={step}>
            {isBad ? countedKinds(found.counts) : formatValue(value)}
          </td>
        );
      })}
    </tr>
  );
}

interface NormRowProps {
  readonly row: VariableRow;
  readonly norm: NormKey;
  readonly from: number;
}

function NormRow({ row, norm, from }: NormRowProps) {
  const columns = row.kinds.slice(from);
  return (
    <tr>
      <th scope="row">
        <Name text={row.name} />
      </th>
      {columns.map((kinds, index) => {
        const value = row[norm][from + index] ?? null;
        const isBad = value === null && kinds !== 0;
        return (
          <td key={index} class={cellClass(index, columns.length, isBad)}>
            {formatValue(value, isBad ? kinds : 0)}
          </td>
        );
      })}
    </tr>
  );
}
