/** The painting of the heatmap on a canvas. */
import type { ColourDomain } from "../colour";
import { formatKinds } from "../format";
import type { Palette } from "../palette";
import type { HeatmapAnswer } from "../protocol.gen";
import { edgeOf, type StepRange } from "../scale";
import { type Block, columnBlocks, nonfiniteBlocks, parseHex, raster } from "./blocks";

export interface HeatmapDrawing {
  readonly answer: HeatmapAnswer;
  readonly domain: ColourDomain;
  readonly range: StepRange;
  readonly palette: Palette;
  /** CSS pixels. */
  readonly width: number;
  readonly rowHeight: number;
}

/** Height in CSS pixels of the strip above the rows, which marks the columns with a non-finite cell. */
export const STRIP_HEIGHT = 10;

/** In a smaller block, a single step among thousands or a variable among hundreds would vanish. */
const LEAST_BLOCK_PX = 6;
/** Browsers give up on canvases that are taller than this. */
const TALLEST_CANVAS_PX = 16_000;

type Place = (column: number) => { readonly x: number; readonly width: number };

export function paintHeatmap(canvas: HTMLCanvasElement, drawing: HeatmapDrawing): void {
  const context = prepared(canvas, drawing);
  if (context === null || drawing.answer.first_step.length === 0) return;
  const place = placer(drawing);
  paintCells(context, drawing, place);
  if (drawing.rowHeight >= 8) paintSeparators(context, drawing);
  for (const block of columnBlocks(drawing.answer.kinds))
    paintStrip(context, drawing, blockBox(block, place, drawing.width));
  for (const block of nonfiniteBlocks(drawing.answer.kinds)) paintBlock(context, drawing, block, place);
}

function prepared(canvas: HTMLCanvasElement, { answer, width, rowHeight }: HeatmapDrawing) {
  const height = STRIP_HEIGHT + answer.rows.length * rowHeight;
  const ratio = height * devicePixelRatio > TALLEST_CANVAS_PX ? 1 : devicePixelRatio;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context?.scale(ratio, ratio);
  return context;
}

/** Place the edges of columns on whole device pixels. Between fractional edges the background would shine through. */
function placer({ answer, range, width }: HeatmapDrawing): Place {
  const snapped = (step: number): number =>
    Math.round(edgeOf(step, range, width) * devicePixelRatio) / devicePixelRatio;
  return (column) => {
    const x = snapped(answer.first_step[column] ?? 0);
    const end = snapped((answer.last_step[column] ?? 0) + 1);
    return { x, width: Math.max(end - x, 1 / devicePixelRatio) };
  };
}

function paintCells(context: CanvasRenderingContext2D, drawing: HeatmapDrawing, place: Place): void {
  const { answer, domain, palette, rowHeight } = drawing;
  const [columns, rows] = [answer.first_step.length, answer.rows.length];
  const cells = new OffscreenCanvas(columns, Math.max(1, rows));
  const pixels = raster(answer, domain, parseHex(palette.zero));
  if (pixels.length > 0) cells.getContext("2d")?.putImageData(new ImageData(pixels, columns, rows), 0, 0);
  context.imageSmoothingEnabled = false;
  for (let column = 0; column < columns; column++) {
    const { x, width } = place(column);
    context.drawImage(cells, column, 0, 1, rows, x, STRIP_HEIGHT, width, rows * rowHeight);
  }
}

function paintSeparators(
  context: CanvasRenderingContext2D,
  { answer, palette, width, rowHeight }: HeatmapDrawing,
) {
  context.fillStyle = palette.background;
  for (let row = 1; row <= answer.rows.length; row++) {
    context.fillRect(0, STRIP_HEIGHT + row * rowHeight - 1, width, 1);
  }
}

interface Span {
  readonly x: number;
  readonly width: number;
}

function blockBox(block: Block, place: Place, within: number): Span {
  const [start, end] = [place(block.from), place(block.to)];
  const width = Math.max(LEAST_BLOCK_PX, end.x + end.width - start.x);
  const x = Math.min(start.x, within - LEAST_BLOCK_PX);
  return { x, width };
}

/** Paint a bar over the columns, and an arrow at the first column. */
function paintStrip(
  context: CanvasRenderingContext2D,
  { palette }: HeatmapDrawing,
  { x, width }: Span,
): void {
  const tip = x + Math.min(width, LEAST_BLOCK_PX) / 2;
  context.fillStyle = palette.nonfinite;
  context.fillRect(x, STRIP_HEIGHT - 3, width, 2);
  context.beginPath();
  context.moveTo(tip - 5, 0);
  context.lineTo(tip + 5, 0);
  context.lineTo(tip, STRIP_HEIGHT - 2);
  context.fill();
}

interface Box extends Span {
  readonly y: number;
  readonly height: number;
}

/** A narrower block is filled, since its hatching would not be recognised. */
const LEAST_HATCHED_PX = 14;

/** Paint a non-finite block: hatched, framed, and labelled with its kinds if they fit, else with a cross. */
function paintBlock(
  context: CanvasRenderingContext2D,
  drawing: HeatmapDrawing,
  block: Block,
  place: Place,
): void {
  const { palette, rowHeight } = drawing;
  const span = blockBox(block, place, drawing.width);
  const height = Math.max(LEAST_BLOCK_PX, rowHeight - (rowHeight >= 8 ? 1 : 0));
  const y = STRIP_HEIGHT + block.row * rowHeight - Math.max(0, height - rowHeight) / 2;
  const box = { ...span, y, height };
  const isHatched = box.width >= LEAST_HATCHED_PX && box.height > LEAST_BLOCK_PX;
  context.save();
  context.beginPath();
  context.rect(box.x, box.y, box.width, box.height);
  context.clip();
  context.fillStyle = isHatched ? palette.background : palette.nonfinite;
  context.fillRect(box.x, box.y, box.width, box.height);
  if (isHatched) paintHatching(context, box, palette);
  paintLabel(context, box, {
    ink: isHatched ? palette.nonfinite : palette.background,
    text: formatKinds(block.kinds),
  });
  context.restore();
}

function paintHatching(
  context: CanvasRenderingContext2D,
  { x, y, width, height }: Box,
  palette: Palette,
): void {
  context.strokeStyle = palette.nonfinite;
  context.fillStyle = palette.background;
  context.lineWidth = 1;
  context.beginPath();
  for (let offset = -height; offset < width; offset += 5) {
    context.moveTo(x + offset, y + height);
    context.lineTo(x + offset + height, y);
  }
  context.rect(x + 0.5, y + 0.5, width - 1, height - 1);
  context.stroke();
}

interface Label {
  readonly ink: string;
  readonly text: string;
}

/** Paint a label with `ink`. The caller has set the fill to the background colour, which clears the hatching below it. */
function paintLabel(context: CanvasRenderingContext2D, box: Box, { ink, text }: Label): void {
  if (box.height < 10 || box.width < 9) return;
  context.font = "600 10px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  const textWidth = context.measureText(text).width + 8;
  const [label, width] = textWidth <= box.width - 4 ? [text, textWidth] : ["✕", 9];
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  if (box.width >= LEAST_HATCHED_PX) context.fillRect(x - width / 2, box.y + 1, width, box.height - 2);
  context.fillStyle = ink;
  context.fillText(label, x, y + 0.5);
}
