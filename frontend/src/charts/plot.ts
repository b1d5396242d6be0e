/** A uPlot chart: lines with bands, above marks of the non-finite steps. */
import uPlot from "uplot";
import type { Palette } from "../palette";
import type { StepRange } from "../scale";
import { columnBlocks } from "./blocks";
import type { PanelData, PanelModel } from "./lines";

/** Everything that a chart draws. Each drawing replaces the one before as a whole. */
export interface Drawing {
  readonly model: PanelModel;
  readonly data: PanelData;
  readonly range: StepRange;
  readonly palette: Palette;
  readonly tick: (value: number) => string;
  readonly gutter: number;
  readonly width: number;
  readonly height: number;
}

const SERIES_PER_LINE = 3;
const TICK_FONT = "11px system-ui, sans-serif";

export interface Plot {
  draw(drawing: Drawing): void;
  destroy(): void;
}

/** Create a chart in `host`. Its number of lines is fixed; everything else may change with a drawing. */
export function createPlot(host: HTMLElement, initial: Drawing): Plot {
  let current = initial;
  const read = (): Drawing => current;
  const chart = new uPlot(options(read), aligned(initial), host);
  return {
    draw(drawing) {
      const isResized = drawing.width !== current.width || drawing.height !== current.height;
      current = drawing;
      if (isResized) chart.setSize({ width: drawing.width, height: drawing.height });
      chart.setData(aligned(drawing));
    },
    destroy: () => chart.destroy(),
  };
}

function aligned({ data }: Drawing): uPlot.AlignedData {
  return data.columns as uPlot.AlignedData;
}

type Read = () => Drawing;

function options(read: Read): uPlot.Options {
  const { model, width, height } = read();
  return {
    width,
    height,
    padding: [6, 0, 6, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: false, range: () => [read().range.first - 0.5, read().range.last + 0.5] },
      y: { range: () => [read().data.axis.low, read().data.axis.high] },
    },
    axes: [{ show: false }, valueAxisOptions(read)],
    series: [{}, ...model.lines.flatMap((_, index) => lineSeries(read, index))],
    bands: model.lines.map((_, index) => band(read, index)),
    hooks: { drawClear: [(chart) => paintNonfinite(chart, read())] },
  };
}

function valueAxisOptions(read: Read): uPlot.Axis {
  return {
    size: () => read().gutter,
    font: TICK_FONT,
    gap: 6,
    stroke: () => read().palette.muted,
    grid: { stroke: () => read().palette.line, width: 1 },
    ticks: { show: false },
    splits: () => read().data.axis.ticks.map(read().data.axis.place),
    values: () => read().data.axis.ticks.map(read().tick),
  };
}

function colourOf(read: Read, line: number): string {
  const { model, palette } = read();
  return palette.curves[model.lines[line]?.colour ?? 0] ?? palette.muted;
}

function lineSeries(read: Read, line: number): uPlot.Series[] {
  const edge: uPlot.Series = { stroke: () => `${colourOf(read, line)}88`, width: 1, points: { show: false } };
  const main: uPlot.Series = {
    stroke: () => colourOf(read, line),
    width: 1.5,
    points: { show: true, size: 4, fill: () => colourOf(read, line), filter: lonePoints },
  };
  return [main, edge, edge];
}

/** Find the values between two gaps. They are drawn as dots, since a line of a single point is invisible. */
const lonePoints: uPlot.Series.Points.Filter = (chart, series) => {
  const values = chart.data[series] ?? [];
  const isGap = (index: number): boolean => (values[index] ?? null) === null;
  return Array.from(values.keys()).filter((index) => !isGap(index) && isGap(index - 1) && isGap(index + 1));
};

function band(read: Read, line: number): uPlot.Band {
  const upper = 1 + line * SERIES_PER_LINE + 1;
  return { series: [upper, upper + 1], fill: () => `${colourOf(read, line)}33` };
}

/** Tint the steps in which a value of the panel was non-finite, below a bar that stays visible at any width. */
function paintNonfinite(chart: uPlot, { model, palette, range }: Drawing): void {
  const { left, top, width, height } = chart.bbox;
  const place = (step: number): number =>
    left + ((step - range.first) / (range.last - range.first + 1)) * width;
  const { ctx } = chart;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  for (const { from, to } of columnBlocks(model.lines.map((line) => line.curve.kinds))) {
    const start = place(model.first_step[from] ?? 0);
    const size = Math.max(3 * devicePixelRatio, place((model.last_step[to] ?? 0) + 1) - start);
    ctx.fillStyle = palette.nonfiniteWash;
    ctx.fillRect(start, top, size, height);
    ctx.fillStyle = palette.nonfinite;
    ctx.fillRect(start, top, size, 4 * devicePixelRatio);
  }
  ctx.restore();
}
