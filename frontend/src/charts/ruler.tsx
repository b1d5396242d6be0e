import { formatStep } from "../format";
import { edgeOf, type StepRange, stepCount, stepTicks } from "../scale";
import type { State } from "../state";
import type { Frame } from "./frame";

interface RulerProps {
  readonly range: StepRange;
  readonly frame: Frame;
  /** If given, the bad step and the selected step have flags. */
  readonly state?: State;
}

/** The axis of steps. */
export function Ruler({ range, frame, state }: RulerProps) {
  const place = (step: number): string => `${frame.gutter + edgeOf(step + 0.5, range, frame.plot)}px`;
  return (
    <div class={state === undefined ? "ruler" : "ruler ruler-flags"} aria-hidden="true">
      <span class="ruler-title">Step</span>
      {freeTicks(range, frame, state).map((step) => (
        <span class="tick" key={step} style={{ left: place(step) }}>
          {formatStep(step)}
        </span>
      ))}
      {state !== undefined && <Flags state={state} range={range} place={place} />}
    </div>
  );
}

const FLAG_REACH_PX = 48;

/** Ticks that no flag covers. */
function freeTicks(range: StepRange, frame: Frame, state: State | undefined): ReadonlyArray<number> {
  const flags = [state?.derived.badStep.value, state?.derived.cell.value?.step];
  const reach = (FLAG_REACH_PX / frame.plot) * stepCount(range);
  const isFree = (tick: number): boolean =>
    flags.every((step) => !(Math.abs((step ?? Number.NaN) - tick) < reach));
  return stepTicks(range, frame.plot).filter(isFree);
}

interface FlagsProps {
  readonly state: State;
  readonly range: StepRange;
  readonly place: (step: number) => string;
}

function Flags({ state, range, place }: FlagsProps) {
  const badStep = state.derived.badStep.value;
  const selected = state.derived.cell.value?.step ?? null;
  const isShown = (step: number | null): step is number =>
    step !== null && step >= range.first && step <= range.last;
  return (
    <>
      {isShown(selected) && selected !== badStep && (
        <span class="flag flag-selected" style={{ left: place(selected) }}>
          {formatStep(selected)}
        </span>
      )}
      {isShown(badStep) && (
        <span class="flag flag-bad" style={{ left: place(badStep) }}>
          ✕ {formatStep(badStep)}
        </span>
      )}
    </>
  );
}
