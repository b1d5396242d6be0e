import { selectCell } from "../actions";
import { findRow, layerOf } from "../cells";
import { shorten, visible } from "../format";
import type { HeatmapAnswer } from "../protocol.gen";
import type { State } from "../state";
import type { Frame } from "./frame";
import { STRIP_HEIGHT } from "./paint";

export interface LabelsProps {
  readonly state: State;
  readonly answer: HeatmapAnswer;
  readonly frame: Frame;
  readonly rowHeight: number;
}

const LABEL_HEIGHT = 15;

/** The names of the rows: as many as fit, and always the selected row's. */
export function Labels({ state, answer, frame, rowHeight }: LabelsProps) {
  const selected = findRow(answer.rows, state.derived.cell.value);
  const stride = Math.ceil(LABEL_HEIGHT / rowHeight);
  const isShown = (row: number): boolean =>
    row === selected ||
    (row % stride === 0 && Math.abs(row - selected) * rowHeight >= LABEL_HEIGHT) ||
    stride === 1;
  const pick = (row: number): void => {
    const step = state.derived.cell.peek()?.step ?? answer.last_step[answer.last_step.length - 1] ?? 0;
    const entry = answer.rows[row];
    if (entry !== undefined) selectCell(state, { step, layer: layerOf(entry), variable: entry.variable });
  };
  const top = (row: number): number => STRIP_HEIGHT + row * rowHeight + (rowHeight - LABEL_HEIGHT) / 2;
  return (
    <ul class="labels" style={{ width: `${frame.gutter}px` }}>
      {answer.rows.map(({ label }, row) =>
        isShown(row) ? (
          <li
            key={label}
            class={row === selected ? "label label-selected" : "label"}
            style={{ top: `${top(row)}px` }}
          >
            <button
              type="button"
              class="label-name"
              tabIndex={-1}
              title={shorten(visible(label))}
              onClick={() => pick(row)}
            >
              <bdi>{visible(label)}</bdi>
            </button>
          </li>
        ) : null,
      )}
    </ul>
  );
}
