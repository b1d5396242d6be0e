import { type Cell, type CellFact, cellFacts, columnSteps, findRow, statLabel } from "../cells";
import { formatSteps, formatValue, shorten, visible } from "../format";
import type { HeatmapAnswer } from "../protocol.gen";
import { type StepRange, spanAt } from "../scale";
import type { State } from "../state";

/** All that is known of a cell; until the rest has arrived, the number that the heatmap itself shows. */
export function knownFacts(
  cell: Cell,
  answer: HeatmapAnswer | null,
  figures: ReadonlyArray<HeatmapAnswer>,
): { readonly steps: StepRange; readonly facts: ReadonlyArray<CellFact> } {
  const steps = columnSteps(answer, cell.step);
  const ofColumn = figures.filter((figure) => figure.first_step[0] === steps.first);
  const facts = cellFacts(ofColumn, cell);
  return { steps, facts: facts.length > 0 || answer === null ? facts : shownFact(cell, answer) };
}

function shownFact(cell: Cell, answer: HeatmapAnswer): ReadonlyArray<CellFact> {
  const [row, column] = [findRow(answer.rows, cell), spanAt(cell.step, answer.first_step)];
  if (row < 0) return [];
  const kinds = answer.kinds[row]?.[column] ?? 0;
  const text = formatValue(answer.values[row]?.[column] ?? null, kinds);
  return [{ label: statLabel(answer.stat), text, nonfinite: kinds !== 0 }];
}

interface TooltipProps {
  readonly state: State;
  readonly cell: Cell;
  readonly left: number;
  readonly top: number;
  /** Width of the space that it must stay within. */
  readonly within: number;
}

const WIDTH = 290;

/** The numbers of the cell under the pointer. */
export function Tooltip({ state, cell, left, top, within }: TooltipProps) {
  const { heatmap, hovered } = state.derived;
  const { steps, facts } = knownFacts(cell, heatmap.value, hovered.value);
  const x = left + WIDTH + 16 > within ? Math.max(0, left - WIDTH - 12) : left + 14;
  const name = cell.variable ?? cell.layer ?? "";
  return (
    <div
      class="tooltip"
      role="presentation"
      style={{ left: `${x}px`, top: `${top + 14}px`, width: `${WIDTH}px` }}
    >
      <p class="tooltip-name">{shorten(visible(name), 120)}</p>
      <p class="tooltip-steps">
        {steps.first === steps.last ? "Step" : "Steps"} {formatSteps(steps.first, steps.last)}
      </p>
      <dl>
        {facts.map((fact) => (
          <div key={fact.label} class={fact.nonfinite ? "fact fact-bad" : "fact"}>
            <dt>{fact.label}</dt>
            <dd>{fact.text}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}
