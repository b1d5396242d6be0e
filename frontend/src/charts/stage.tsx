import type { ComponentChildren, TargetedPointerEvent } from "preact";
import { useState } from "preact/hooks";
import { showAllSteps, zoomTo } from "../actions";
import { edgeOf, type StepRange, stepAt } from "../scale";
import type { State } from "../state";

export interface Point {
  readonly x: number;
  readonly y: number;
}

interface StageProps {
  readonly state: State;
  readonly range: StepRange;
  readonly width: number;
  readonly height: number;
  readonly onPick: (point: Point) => void;
  readonly onPoint: (point: Point | null) => void;
  readonly children?: ComponentChildren;
}

/** A press that moves farther than this is a drag. */
const DRAG_FROM_PX = 5;

interface Drag {
  readonly from: number;
  readonly to: number;
}

/** The plot area of a chart. It handles the pointer, zooms on a drag, and draws the marks that all charts share. */
export function Stage({ state, range, width, height, onPick, onPoint, children }: StageProps) {
  const [drag, setDrag] = useState<Drag | null>(null);
  const isDrag = drag !== null && Math.abs(drag.to - drag.from) > DRAG_FROM_PX;
  const press = (event: TargetedPointerEvent<HTMLDivElement>): void => {
    if (event.button !== 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    setDrag({ from: within(event).x, to: within(event).x });
  };
  const move = (event: TargetedPointerEvent<HTMLDivElement>): void => {
    if (drag !== null) setDrag({ ...drag, to: within(event).x });
    onPoint(within(event));
  };
  const release = (event: TargetedPointerEvent<HTMLDivElement>): void => {
    if (isDrag) zoomTo(state, dragged(drag, range, width));
    else if (drag !== null) onPick(within(event));
    setDrag(null);
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keyboard selects in the heatmap, and zooms by the buttons above
    <div
      class="stage"
      style={{ width: `${width}px`, height: `${height}px` }}
      onPointerDown={press}
      onPointerMove={move}
      onPointerUp={release}
      onPointerCancel={() => setDrag(null)}
      onPointerLeave={() => onPoint(null)}
      onDblClick={() => showAllSteps(state)}
    >
      {children}
      <Marks state={state} range={range} width={width} />
      {isDrag && <DragBox drag={drag} />}
    </div>
  );
}

function within(event: TargetedPointerEvent<HTMLDivElement>): Point {
  const box = event.currentTarget.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

function dragged({ from, to }: Drag, range: StepRange, width: number): StepRange {
  const [left, right] = [Math.min(from, to), Math.max(from, to)];
  return { first: stepAt(left, range, width), last: stepAt(right, range, width) };
}

function DragBox({ drag }: { readonly drag: Drag }) {
  const left = Math.min(drag.from, drag.to);
  return <div class="drag-box" style={{ left: `${left}px`, width: `${Math.abs(drag.to - drag.from)}px` }} />;
}

interface MarksProps {
  readonly state: State;
  readonly range: StepRange;
  readonly width: number;
}

/** Vertical lines at the step under the pointer, the selected step and the first non-finite step. */
function Marks({ state, range, width }: MarksProps) {
  const { derived, pointer } = state;
  const selected = derived.cell.value?.step ?? null;
  return (
    <>
      <Mark kind="pointer" step={pointer.value?.step ?? null} range={range} width={width} />
      <Mark kind="selected" step={selected} range={range} width={width} />
      <Mark kind="bad" step={derived.badStep.value} range={range} width={width} />
    </>
  );
}

interface MarkProps {
  readonly kind: "pointer" | "selected" | "bad";
  readonly step: number | null;
  readonly range: StepRange;
  readonly width: number;
}

function Mark({ kind, step, range, width }: MarkProps) {
  if (step === null || step < range.first || step > range.last) return null;
  return <div class={`mark mark-${kind}`} style={{ left: `${edgeOf(step + 0.5, range, width)}px` }} />;
}
