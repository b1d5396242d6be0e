/** Which panels the timeline has for what a run recorded. Pure. */
import { type Cell, findRow, finiteValue, statLabel } from "../cells";
import { clipsAnything } from "../clipping";
import type { Curve, HeatmapAnswer, SeriesAnswer } from "../protocol.gen";
import type { Line, PanelModel } from "./lines";

type Steps = Pick<PanelModel, "first_step" | "last_step">;

/** Builds the panels of a run's own curves: loss, norms, clipping, and each watched tensor. */
export function runPanels(series: SeriesAnswer): ReadonlyArray<PanelModel> {
  const curve = (name: string): Curve | undefined => series.curves.find((entry) => entry.name === name);
  const line = (name: string, label: string, colour: number): Line[] => {
    const found = curve(name);
    return found !== undefined && hasData(found) ? [{ label, curve: found, colour }] : [];
  };
  // Clipping that never was leaves a flat line at 1, and two norms that are one: neither tells anything.
  const ratio = line("clip_ratio", "", 0).filter(({ curve: found }) => clipsAnything(found));
  const clippedNorm = ratio.length > 0 ? line("clipped_global_norm", "after", 0) : [];
  const norm = line("global_norm", clippedNorm.length > 0 ? "before" : "", 1);
  const panels = [
    panel(series, "Loss", line("loss", "", 2)),
    panel(series, "Gradient norm", [...norm, ...clippedNorm]),
    panel(series, "Clip ratio", ratio),
    panel(
      series,
      "Skipped steps",
      line("skipped", "", 0).filter(({ curve: found }) => isEverSet(found)),
    ),
    panel(series, "Loss scale", line("loss_scale", "", 2)),
    panel(series, "Micro-batches", line("microbatches", "", 2)),
    ...series.tensors.map((tensor) => tensorPanel(series, tensor)),
  ];
  return panels.filter(({ lines }) => lines.length > 0);
}

function isEverSet({ max }: Curve): boolean {
  return max.some((value) => value !== null && value > 0);
}

function panel(steps: Steps, title: string, lines: ReadonlyArray<Line>): PanelModel {
  return { key: title, title, first_step: steps.first_step, last_step: steps.last_step, lines };
}

function tensorPanel(steps: Steps, tensor: Curve): PanelModel {
  const line = { label: "", curve: tensor, colour: 2 };
  return { ...panel(steps, tensor.name, [line]), key: `tensor ${tensor.name}`, note: "norm of the tensor" };
}

function hasData({ min, max, mean, kinds }: Curve): boolean {
  return (
    [min, max, mean].some((values) => values.some((value) => value !== null)) ||
    kinds.some((bits) => bits !== 0)
  );
}

/** Builds the panel of the selected row of the heatmap; `null` where the selection lies in none. */
export function rowPanel(heatmap: HeatmapAnswer, cell: Cell | null): PanelModel | null {
  const index = findRow(heatmap.rows, cell);
  const row = heatmap.rows[index];
  const kinds = heatmap.kinds[index];
  if (row === undefined || kinds === undefined) return null;
  const values = kinds.map((_, column) => finiteValue(heatmap, index, column));
  const kept: Pick<Curve, "min" | "max" | "mean"> =
    heatmap.keeps === "min" ? { min: values, max: [], mean: [] } : { min: [], max: values, mean: [] };
  const curve: Curve = { name: row.label, ...kept, kinds };
  const note = `${statLabel(heatmap.stat).toLowerCase()} (${heatmap.keeps})`;
  return { ...panel(heatmap, row.label, [{ label: "", curve, colour: 1 }]), key: "selected row", note };
}
