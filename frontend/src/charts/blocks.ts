/** The coloured pixels of a heatmap, and blocks of neighbouring non-finite cells. Pure. */
import { type ColourDomain, colourPosition, type Rgb, viridis } from "../colour";
import type { HeatmapAnswer } from "../protocol.gen";

const CHANNELS = 4;
const OPAQUE = 255;
const SHADES = 256;

/**
 * Colour a heatmap with one RGBA pixel per cell, row by row.
 *
 * Zero has no logarithm, so it has its own colour. A cell without a value stays transparent.
 */
export function raster(
  answer: HeatmapAnswer,
  domain: ColourDomain,
  zero: Rgb,
): Uint8ClampedArray<ArrayBuffer> {
  const columns = answer.first_step.length;
  const pixels = new Uint8ClampedArray(answer.rows.length * columns * CHANNELS);
  const shades = Array.from({ length: SHADES }, (_, index) => viridis(index / (SHADES - 1)));
  const shade = (value: number): Rgb =>
    value > 0 ? (shades[Math.round(colourPosition(value, domain) * (SHADES - 1))] ?? zero) : zero;
  for (let row = 0; row < answer.rows.length; row++) {
    for (let column = 0; column < columns; column++) {
      const value = answer.values[row]?.[column] ?? null;
      if (value !== null) pixels.set([...shade(value), OPAQUE], (row * columns + column) * CHANNELS);
    }
  }
  return pixels;
}

/** Parse a colour such as `#8d939c`. */
export function parseHex(colour: string): Rgb {
  const part = (start: number): number => Number.parseInt(colour.slice(start, start + 2), 16) || 0;
  return [part(1), part(3), part(5)];
}

/** Neighbouring non-finite cells of one row: the first and the last column, and the union of the kinds. */
export interface Block {
  readonly row: number;
  readonly from: number;
  readonly to: number;
  readonly kinds: number;
}

/** Join the non-finite cells of each row into blocks. */
export function nonfiniteBlocks(kinds: ReadonlyArray<ReadonlyArray<number>>): ReadonlyArray<Block> {
  return kinds.flatMap((row, index) => rowBlocks(row, index));
}

/** Join the columns that hold a non-finite cell in any row into one row of blocks. */
export function columnBlocks(kinds: ReadonlyArray<ReadonlyArray<number>>): ReadonlyArray<Block> {
  const columns = kinds[0]?.length ?? 0;
  const unionAt = (column: number): number => kinds.reduce((bits, row) => bits | (row[column] ?? 0), 0);
  return rowBlocks(
    Array.from({ length: columns }, (_, column) => unionAt(column)),
    0,
  );
}

function rowBlocks(kinds: ReadonlyArray<number>, row: number): Block[] {
  const blocks: Block[] = [];
  for (const [column, bits] of kinds.entries()) {
    const last = blocks[blocks.length - 1];
    if (bits === 0) continue;
    if (last?.to === column - 1)
      blocks[blocks.length - 1] = { ...last, to: column, kinds: last.kinds | bits };
    else blocks.push({ row, from: column, to: column, kinds: bits });
  }
  return blocks;
}
