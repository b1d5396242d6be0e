import { useMemo, useRef } from "preact/hooks";
import { showAllSteps, showSession, zoomToSelection } from "../actions";
import { type Frame, useFrame } from "../charts/frame";
import { Heatmap } from "../charts/heatmap";
import { Panel } from "../charts/panel";
import { rowPanel, runPanels } from "../charts/panels";
import { Ruler } from "../charts/ruler";
import { formatStep } from "../format";
import { HEATMAP_STATS, isInformative, statLabel } from "../heatmap_stats";
import type { Palette } from "../palette";
import type { HeatmapAnswer, SeriesAnswer } from "../protocol.gen";
import type { Spacing, StepRange } from "../scale";
import type { Grouping, State } from "../state";
import { Choice } from "./controls";
import { Selection } from "./selection";

/** The timeline and below it the heatmap, on the same axis of steps. */
export function Charts({ state }: { readonly state: State }) {
  const box = useRef<HTMLDivElement>(null);
  const frame = useFrame(box);
  const { series, heatmap, range } = state.derived;
  const palette = state.palette.value;
  const isReady = frame !== null && range.value !== null && palette !== null;
  return (
    <section class="charts" aria-label="Timeline and heatmap">
      <ChartBar state={state} series={series.value} />
      <div ref={box} class={state.answers.heatmap.pending.value ? "chart-box chart-box-stale" : "chart-box"}>
        {isReady && <Timeline state={state} frame={frame} range={range.value} palette={palette} />}
        <Selection state={state} />
        <HeatmapBar state={state} />
        {isReady && heatmap.value !== null && (
          <HeatmapOrNote
            state={state}
            answer={heatmap.value}
            frame={frame}
            range={range.value}
            palette={palette}
          />
        )}
      </div>
    </section>
  );
}

interface DrawnProps {
  readonly state: State;
  readonly frame: Frame;
  readonly range: StepRange;
  readonly palette: Palette;
}

function Timeline({ state, frame, range, palette }: DrawnProps) {
  const { derived } = state;
  const [series, heatmap, cell] = [derived.series.value, derived.heatmap.value, derived.cell.value];
  const panels = useMemo(() => (series === null ? [] : runPanels(series)), [series]);
  const row = useMemo(() => (heatmap === null ? null : rowPanel(heatmap, cell)), [heatmap, cell]);
  return (
    <div class="timeline" data-testid="timeline">
      <Ruler range={range} frame={frame} state={state} />
      {[...panels, ...(row === null ? [] : [row])].map((model) => (
        <Panel key={model.key} state={state} model={model} frame={frame} range={range} palette={palette} />
      ))}
    </div>
  );
}

function HeatmapOrNote({ answer, ...rest }: DrawnProps & { readonly answer: HeatmapAnswer }) {
  if (answer.rows.length === 0 || answer.first_step.length === 0) {
    return (
      <p class="note">Nothing of this was recorded in these steps: {statLabel(answer.stat).toLowerCase()}.</p>
    );
  }
  return <Heatmap answer={answer} {...rest} />;
}

const SPACINGS: ReadonlyArray<{ readonly value: Spacing; readonly label: string }> = [
  { value: "log", label: "Log" },
  { value: "linear", label: "Linear" },
];

/** The steps and the session on show, and the controls that change them. */
function ChartBar({ state, series }: { readonly state: State; readonly series: SeriesAnswer | null }) {
  const { choices, derived } = state;
  const range = derived.range.value;
  return (
    <div class="bar">
      <h2>Timeline</h2>
      {range !== null && (
        <span class="muted number">
          steps {formatStep(range.first)} to {formatStep(range.last)}
        </span>
      )}
      {series !== null && series.sessions.length > 1 && <Sessions state={state} series={series} />}
      <span class="spring" />
      <button
        type="button"
        disabled={derived.cell.value === null || range === null}
        onClick={() => zoomToSelection(state)}
      >
        Zoom to selection
      </button>
      <button type="button" disabled={choices.zoom.value === null} onClick={() => showAllSteps(state)}>
        All steps
      </button>
      <Choice name="Vertical axis" options={SPACINGS} chosen={choices.spacing} />
    </div>
  );
}

/** The choice of a session. The sessions of a restarted run may overlap in their steps, so one is shown at a time. */
function Sessions({ state, series }: { readonly state: State; readonly series: SeriesAnswer }) {
  return (
    <label class="sessions">
      Session
      <select
        value={String(series.session)}
        onChange={(event) => showSession(state, Number(event.currentTarget.value))}
      >
        {series.sessions.map((session) => (
          <option key={session} value={String(session)}>
            {session}
          </option>
        ))}
      </select>
    </label>
  );
}

const GROUPINGS: ReadonlyArray<{ readonly value: Grouping; readonly label: string }> = [
  { value: "layer", label: "Layers" },
  { value: "variable", label: "Variables" },
];

const STATS = HEATMAP_STATS.map(({ stat, label }) => ({ value: stat, label }));

function HeatmapBar({ state }: { readonly state: State }) {
  const { choices, derived } = state;
  return (
    <div class="bar">
      <h2>Heatmap</h2>
      <span class="spring" />
      <Choice name="Rows" options={GROUPINGS} chosen={choices.grouping} />
      <Choice
        name="Statistic"
        options={STATS.filter(({ value }) => isInformative(value, derived.clips.value))}
        chosen={choices.stat}
        shown={derived.stat.value}
      />
    </div>
  );
}
