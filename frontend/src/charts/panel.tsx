import { useEffect, useMemo, useRef } from "preact/hooks";
import { selectCell } from "../actions";
import { formatNumber, shorten, visible } from "../format";
import type { Palette } from "../palette";
import { type StepRange, stepAt } from "../scale";
import type { State } from "../state";
import type { Frame } from "./frame";
import { type PanelModel, panelData, readout } from "./lines";
import { createPlot, type Drawing, type Plot } from "./plot";
import { Stage } from "./stage";

interface PanelProps {
  readonly state: State;
  readonly model: PanelModel;
  readonly frame: Frame;
  readonly range: StepRange;
  readonly palette: Palette;
}

const HEIGHT = 84;

/** A chart of the timeline. */
export function Panel({ state, model, frame, range, palette }: PanelProps) {
  const spacing = state.choices.spacing.value;
  const data = useMemo(() => panelData(model, spacing), [model, spacing]);
  const size = { width: frame.gutter + frame.plot, height: HEIGHT, gutter: frame.gutter };
  const host = useRef<HTMLDivElement>(null);
  usePlot(host, { model, data, range, palette, tick: (value) => formatNumber(value, 3), ...size });
  const stepOf = (x: number): number => stepAt(x, range, frame.plot);
  const point = (step: number) => ({ step, layer: null, variable: null });
  return (
    <section class={frame.isNarrow ? "panel panel-narrow" : "panel"} aria-label={model.title}>
      <PanelHead state={state} model={model} />
      <div class="panel-plot" style={{ height: `${HEIGHT}px` }}>
        <div ref={host} class="panel-canvas" aria-hidden="true" />
        <div class="panel-stage" style={{ left: `${frame.gutter}px` }}>
          <Stage
            state={state}
            range={range}
            width={frame.plot}
            height={HEIGHT}
            onPick={({ x }) => selectCell(state, point(stepOf(x)))}
            onPoint={(at) => {
              state.pointer.value = at && point(stepOf(at.x));
            }}
          />
        </div>
      </div>
    </section>
  );
}

/** Keep a chart in `host`: create it again when its number of lines changes, and redraw it when anything else does. */
function usePlot(host: { readonly current: HTMLDivElement | null }, drawing: Drawing): void {
  const plot = useRef<Plot | null>(null);
  const lines = drawing.model.lines.length;
  useEffect(() => {
    if (host.current === null) return;
    plot.current = createPlot(host.current, drawing);
    return () => plot.current?.destroy();
  }, [lines]);
  const { data, range, palette, width, gutter } = drawing;
  useEffect(() => plot.current?.draw(drawing), [data, range, palette, width, gutter]);
}

/** The panel's title, and the values at the step under the pointer or else at the selected step. */
function PanelHead({ state, model }: { readonly state: State; readonly model: PanelModel }) {
  const step = state.pointer.value?.step ?? state.derived.cell.value?.step ?? null;
  return (
    <header class="panel-head">
      <h3 title={shorten(visible(model.title))}>{visible(model.title)}</h3>
      {model.note !== undefined && <p class="panel-note">{model.note}</p>}
      {model.lines.map((line) => (
        <p class="readout" key={line.label}>
          {line.label !== "" && <span class={`swatch swatch-${line.colour}`} aria-hidden="true" />}
          {line.label !== "" && <span>{line.label}</span>}
          <span class="number">{step === null ? "" : readout(model, line, step)}</span>
        </p>
      ))}
    </header>
  );
}
