import type { TargetedKeyboardEvent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { cellAt, moveSelection, selectAt, showAllSteps, zoomToSelection } from "../actions";
import { columnSteps, findRow } from "../cells";
import { colourDomain } from "../colour";
import { statLabel } from "../heatmap_stats";
import type { Palette } from "../palette";
import type { HeatmapAnswer } from "../protocol.gen";
import { edgeOf, type StepRange, spanAt, stepAt } from "../scale";
import type { State } from "../state";
import type { Frame } from "./frame";
import { Labels, type LabelsProps } from "./labels";
import { Legend } from "./legend";
import { type HeatmapDrawing, paintHeatmap, STRIP_HEIGHT } from "./paint";
import { Ruler } from "./ruler";
import { type Point, Stage } from "./stage";
import { Tooltip } from "./tooltip";

interface HeatmapProps {
  readonly state: State;
  readonly answer: HeatmapAnswer;
  readonly frame: Frame;
  readonly range: StepRange;
  readonly palette: Palette;
}

const WANTED_HEIGHT = 400;
const [LEAST_ROW, MOST_ROW] = [3, 22];

/** The heatmap: layers or variables by steps. */
export function Heatmap({ state, answer, frame, range, palette }: HeatmapProps) {
  const domain = useMemo(() => colourDomain(answer.values), [answer]);
  const rowHeight = Math.min(MOST_ROW, Math.max(LEAST_ROW, Math.floor(WANTED_HEIGHT / answer.rows.length)));
  const [scroll, setScroll] = useState(0);
  const scroller = useRef<HTMLDivElement>(null);
  const selected = findRow(answer.rows, state.derived.cell.value);
  useEffect(
    () => reveal(scroller.current, STRIP_HEIGHT + selected * rowHeight, rowHeight),
    [selected, rowHeight],
  );
  return (
    <div class="heatmap" data-testid="heatmap">
      <div
        ref={scroller}
        class="heatmap-scroll"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: an application takes the keys itself, so it must take the focus
        tabIndex={0}
        role="application"
        aria-roledescription="heatmap"
        aria-label={`${statLabel(answer.stat)}, ${answer.rows.length} rows by ${answer.first_step.length} spans of steps. Arrow keys move the selection.`}
        aria-describedby="selected-cell"
        onKeyDown={(event) => onKey(event, state)}
        onScroll={(event) => setScroll(event.currentTarget.scrollTop)}
      >
        <Labels state={state} answer={answer} frame={frame} rowHeight={rowHeight} />
        <Plot state={state} drawing={{ answer, domain, range, palette, width: frame.plot, rowHeight }} />
      </div>
      <HoverTip
        state={state}
        answer={answer}
        frame={frame}
        rowHeight={rowHeight}
        scroll={scroll}
        range={range}
      />
      <Ruler range={range} frame={frame} />
      <Legend domain={domain} title={`${statLabel(answer.stat)} (${answer.keeps})`} />
    </div>
  );
}

/** Scroll a row into view within the heatmap's box. The page itself does not scroll. */
function reveal(box: HTMLElement | null, top: number, height: number): void {
  if (box === null || top < 0) return;
  if (top < box.scrollTop) box.scrollTop = top - STRIP_HEIGHT;
  else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
}

const KEYS: Readonly<Record<string, (state: State, isFar: boolean) => void>> = {
  ArrowLeft: (state, isFar) => moveSelection(state, isFar ? -10 : -1, 0),
  ArrowRight: (state, isFar) => moveSelection(state, isFar ? 10 : 1, 0),
  ArrowUp: (state, isFar) => moveSelection(state, 0, isFar ? -10 : -1),
  ArrowDown: (state, isFar) => moveSelection(state, 0, isFar ? 10 : 1),
  Home: (state) => moveSelection(state, Number.NEGATIVE_INFINITY, 0),
  End: (state) => moveSelection(state, Number.POSITIVE_INFINITY, 0),
  Enter: (state) => zoomToSelection(state),
  Escape: (state) => showAllSteps(state),
};

function onKey(event: TargetedKeyboardEvent<HTMLDivElement>, state: State): void {
  const action = KEYS[event.key];
  if (action === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action(state, event.shiftKey);
}

/** The canvas, and on top of it the marks of the selection and the pointer. */
function Plot({ state, drawing }: { readonly state: State; readonly drawing: HeatmapDrawing }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { answer, domain, range, palette, width, rowHeight } = drawing;
  useEffect(() => {
    if (canvas.current !== null) paintHeatmap(canvas.current, drawing);
  }, [answer, domain, range, palette, width, rowHeight]);
  const locate = ({ x, y }: Point): [column: number, row: number] => [
    spanAt(stepAt(x, range, width), answer.first_step),
    Math.min(answer.rows.length - 1, Math.max(0, Math.floor((y - STRIP_HEIGHT) / rowHeight))),
  ];
  const height = STRIP_HEIGHT + answer.rows.length * rowHeight;
  return (
    <Stage
      state={state}
      range={range}
      width={width}
      height={height}
      onPick={(point) => selectAt(state, ...locate(point))}
      onPoint={(point) => {
        state.pointer.value = point && cellAt(state, ...locate(point));
      }}
    >
      <canvas ref={canvas} />
      <SelectionBox state={state} drawing={drawing} />
    </Stage>
  );
}

/** A narrower frame would cover its own cell. */
const LEAST_FRAME_PX = 10;

/** A frame around the selected cell, and a faint frame around its row. */
function SelectionBox({ state, drawing }: { readonly state: State; readonly drawing: HeatmapDrawing }) {
  const { answer, range, width, rowHeight } = drawing;
  const cell = state.derived.cell.value;
  const row = findRow(answer.rows, cell);
  if (cell === null || row < 0) return null;
  const vertical = { top: `${STRIP_HEIGHT + row * rowHeight - 1}px`, height: `${rowHeight + 1}px` };
  const { first, last } = columnSteps(answer, cell.step);
  const start = edgeOf(first, range, width);
  const size = Math.max(LEAST_FRAME_PX, edgeOf(last + 1, range, width) - start);
  const left = Math.min(start, width - size);
  return (
    <>
      <div class="row-box" style={{ ...vertical, left: "0", width: `${width}px` }} />
      {first <= range.last && last >= range.first && (
        <div class="cell-box" style={{ ...vertical, left: `${left - 1}px`, width: `${size + 2}px` }} />
      )}
    </>
  );
}

interface HoverTipProps extends LabelsProps {
  readonly range: StepRange;
  readonly scroll: number;
}

/** The tooltip, beside the cell under the pointer. */
function HoverTip({ state, answer, frame, rowHeight, range, scroll }: HoverTipProps) {
  const cell = state.pointer.value;
  if (cell === null || cell.layer === null) return null;
  const row = findRow(answer.rows, cell);
  const left = frame.gutter + edgeOf(cell.step + 0.5, range, frame.plot);
  const top = STRIP_HEIGHT + (row + 1) * rowHeight - scroll;
  return <Tooltip state={state} cell={cell} left={left} top={top} within={frame.width} />;
}
