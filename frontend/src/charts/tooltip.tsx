import { type Cell, describeSteps, knownFacts } from "../cells";
import { shorten, visible } from "../format";
import type { State } from "../state";

interface TooltipProps {
  readonly state: State;
  readonly cell: Cell;
  readonly left: number;
  readonly top: number;
  /** The tooltip must stay within this width. */
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
      <p class="tooltip-steps">{describeSteps(steps)}</p>
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
