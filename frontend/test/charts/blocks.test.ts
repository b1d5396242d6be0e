import { describe, expect, it } from "vitest";
import { columnBlocks, nonfiniteBlocks, parseHex, raster } from "../../src/charts/blocks";
import { viridis } from "../../src/colour";
import { HEATMAP } from "../examples";

const ZERO = [1, 2, 3] as const;

function pixel(row: number, column: number): number[] {
  const at = (row * 3 + column) * 4;
  return [...raster(HEATMAP, { low: 0, high: 2 }, ZERO).slice(at, at + 4)];
}

describe("raster", () => {
  it("colours a norm by its logarithm", () => {
    expect(pixel(0, 0)).toEqual([...viridis(0), 255]);
    expect(pixel(0, 2)).toEqual([...viridis(1), 255]);
  });

  it("saturates beyond the ends of the map", () => {
    expect(pixel(1, 2)).toEqual([...viridis(1), 255]);
  });

  it("distinguishes zero from a norm and from an absent value", () => {
    expect(pixel(1, 0)).toEqual([1, 2, 3, 255]);
    expect(pixel(1, 1)).toEqual([0, 0, 0, 0]);
  });
});

describe("nonfiniteBlocks", () => {
  it("joins neighbours within a row and keeps all their kinds", () => {
    const kinds = [
      [0, 1, 2, 0, 4],
      [1, 0, 0, 0, 0],
    ];
    expect(nonfiniteBlocks(kinds)).toEqual([
      { row: 0, from: 1, to: 2, kinds: 3 },
      { row: 0, from: 4, to: 4, kinds: 4 },
      { row: 1, from: 0, to: 0, kinds: 1 },
    ]);
  });
});

describe("columnBlocks", () => {
  it("marks a column if any of its rows is non-finite", () => {
    const kinds = [
      [0, 0, 1, 0],
      [0, 2, 0, 0],
    ];
    expect(columnBlocks(kinds)).toEqual([{ row: 0, from: 1, to: 2, kinds: 3 }]);
  });

  it("joins neighbouring columns over all rows, up to the last column", () => {
    const blocks = columnBlocks([
      [0, 1, 0, 0, 2],
      [0, 0, 4, 0, 0],
    ]);
    expect(blocks.map(({ from, to }) => ({ from, to }))).toEqual([
      { from: 1, to: 2 },
      { from: 4, to: 4 },
    ]);
  });

  it("marks nothing in an empty heatmap", () => {
    expect(columnBlocks([])).toEqual([]);
  });
});

describe("parseHex", () => {
  it("reads a colour of the style sheet", () => {
    expect(parseHex("#8d9aff")).toEqual([141, 154, 255]);
  });
});
