/** The charts of the timeline, and the panels that a run's data fills. Pure. */
import { type Cell, findRow, finiteValue } from "../cells";
import { isClipping } from "../clipping";
import { statLabel } from "../heatmap_stats";
import type { Curve, HeatmapAnswer, SeriesAnswer, StatKey } from "../protocol.gen";
import type { Line, PanelModel } from "./lines";

interface Chart {
  readonly title: string;
  readonly lines: ReadonlyArray<ChartLine>;
}

interface ChartLine {
  readonly stat: StatKey;
  /** Names the line where a panel draws several. */
  readonly label?: string;
  /** Index of its colour in the palette. */
  readonly colour: number;
  /** Whether the line shows anything of its own in this run. */
  readonly isInformative?: (series: SeriesAnswer) => boolean;
}

/**
 * The charts of the timeline, from top to bottom. To add a chart, add an entry.
 *
 * Without clipping, the ratio is a flat line at 1 and the norm after clipping repeats the norm before.
 */
const CHARTS: ReadonlyArray<Chart> = [
  { title: "Loss", lines: [{ stat: "loss", colour: 2 }] },
  {
    title: "Gradient norm",
    lines: [
      { stat: "global_norm", label: "before", colour: 1 },
      { stat: "clipped_global_norm", label: "after", colour: 0, isInformative: isClipping },
    ],
  },
  { title: "Clip ratio", lines: [{ stat: "clip_ratio", colour: 0, isInformative: isClipping }] },
  { title: "Skipped steps", lines: [{ stat: "skipped", colour: 0, isInformative: hasSkippedStep }] },
  { title: "Loss scale", lines: [{ stat: "loss_scale", colour: 2 }] },
  { title: "Micro-batches", lines: [{ stat: "microbatches", colour: 2 }] },
];

/** Build the panels of a run: each chart that has data, then each watched tensor. */
export function runPanels(series: SeriesAnswer): ReadonlyArray<PanelModel> {
  const charts = CHARTS.map(({ title, lines }) => panel(series, title, chartLines(series, lines)));
  const tensors = series.tensors.map((tensor) => tensorPanel(series, tensor));
  return [...charts.filter(({ lines }) => lines.length > 0), ...tensors];
}

function chartLines(series: SeriesAnswer, lines: ReadonlyArray<ChartLine>): ReadonlyArray<Line> {
  const drawn = lines.flatMap(({ stat, label = "", colour, isInformative }) => {
    const curve = curveOf(series, stat);
    const isDrawn = curve !== undefined && hasData(curve) && (isInformative?.(series) ?? true);
    return isDrawn ? [{ label, curve, colour }] : [];
  });
  return drawn.length > 1 ? drawn : drawn.map((line) => ({ ...line, label: "" }));
}

function curveOf({ curves }: SeriesAnswer, stat: StatKey): Curve | undefined {
  return curves.find(({ name }) => name === stat);
}

function hasSkippedStep(series: SeriesAnswer): boolean {
  return curveOf(series, "skipped")?.max.some((value) => value !== null && value > 0) ?? false;
}

function hasData({ min, max, mean, kinds }: Curve): boolean {
  return (
    [min, max, mean].some((values) => values.some((value) => value !== null)) ||
    kinds.some((bits) => bits !== 0)
  );
}

type Steps = Pick<PanelModel, "first_step" | "last_step">;

function panel({ first_step, last_step }: Steps, title: string, lines: ReadonlyArray<Line>): PanelModel {
  return { key: title, title, first_step, last_step, lines };
}

function tensorPanel(steps: Steps, tensor: Curve): PanelModel {
  const line = { label: "", curve: tensor, colour: 2 };
  return { ...panel(steps, tensor.name, [line]), key: `tensor ${tensor.name}`, note: "norm of the tensor" };
}

/** Build the panel of the selected row of the heatmap; `null` if the heatmap has no such row. */
export function rowPanel(heatmap: HeatmapAnswer, cell: Cell | null): PanelModel | null {
  const index = findRow(heatmap.rows, cell);
  const row = heatmap.rows[index];
  const kinds = heatmap.kinds[index];
  if (row === undefined || kinds === undefined) return null;
  const values = kinds.map((_, column) => finiteValue(heatmap, index, column));
  const extreme: Pick<Curve, "min" | "max" | "mean"> =
    heatmap.keeps === "min" ? { min: values, max: [], mean: [] } : { min: [], max: values, mean: [] };
  const curve: Curve = { name: row.label, ...extreme, kinds };
  const note = `${statLabel(heatmap.stat).toLowerCase()} (${heatmap.keeps})`;
  return { ...panel(heatmap, row.label, [{ label: "", curve, colour: 1 }]), key: "selected row", note };
}
