import { type Cell, knownFacts } from "../cells";
import { formatSteps, shorten, visible } from "../format";
import type { State } from "../state";

interface TooltipProps {
  readonly state: State;
  readonly cell: Cell;
  readonly left: number;
  readonly top: number;
  /** Width of the space that it must stay within. */
  readonly within: number;
}

const WIDTH = 316;

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
