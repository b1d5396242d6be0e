import { type Cell, describeCell, knownFacts } from "../cells";
import { formatStep, formatSteps } from "../format";
import type { State } from "../state";
import { Name } from "./name";

/** The selected step and layer with their numbers. Screen readers announce each change. */
export function Selection({ state }: { readonly state: State }) {
  const cell = state.derived.cell.value;
  return (
    <div class="selection">
      {cell === null ? (
        <p id="selected-cell" class="muted" data-testid="heatmap-cell-text">
          Nothing is selected. Click a step above or a cell below; drag to zoom.
        </p>
      ) : (
        <SelectedCell state={state} cell={cell} />
      )}
    </div>
  );
}

function SelectedCell({ state, cell }: { readonly state: State; readonly cell: Cell }) {
  const { heatmap, range, selected } = state.derived;
  const isOutside = range.value !== null && (cell.step < range.value.first || cell.step > range.value.last);
  const { steps, facts } = knownFacts(cell, heatmap.value, selected.value);
  return (
    <>
      <span class="chip">
        <span class="chip-label">Step</span>
        <span class="number" data-testid="selected-step">
          {formatStep(cell.step)}
        </span>
      </span>
      {cell.layer === null && <span class="muted">no layer: click a cell below for its numbers</span>}
      {cell.layer !== null && (
        <span class="chip">
          <span class="chip-label">Layer</span>
          <Name text={cell.layer} testid="selected-layer" />
        </span>
      )}
      {cell.variable !== null && (
        <span class="chip">
          <span class="chip-label">Variable</span>
          <Name text={cell.variable} />
        </span>
      )}
      {isOutside && <span class="muted">outside the steps on show</span>}
      {steps.first !== steps.last && (
        <span class="muted number">in steps {formatSteps(steps.first, steps.last)}</span>
      )}
      <dl class="facts">
        {facts.map((fact) => (
          <div key={fact.label} class={fact.nonfinite ? "fact fact-bad" : "fact"}>
            <dt>{fact.label}</dt>
            <dd class="number">{fact.text}</dd>
          </div>
        ))}
      </dl>
      <p id="selected-cell" class="unseen" aria-live="polite" data-testid="heatmap-cell-text">
        {describeCell(cell, steps, facts)}
      </p>
    </>
  );
}
