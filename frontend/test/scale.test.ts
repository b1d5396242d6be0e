import { describe, expect, it } from "vitest";
import { decadeTicks, edgeOf, evenTicks, spanAt, stepAt, stepTicks, valueAxis } from "../src/scale";

const RANGE = { first: 100, last: 299 };

describe("steps on the screen", () => {
  it("gives every step the same share of the width", () => {
    expect(edgeOf(100, RANGE, 400)).toBe(0);
    expect(edgeOf(200, RANGE, 400)).toBe(200);
    expect(edgeOf(300, RANGE, 400)).toBe(400);
  });

  it("finds the step whose share holds a pixel", () => {
    expect([0, 1.9, 2, 399.9].map((x) => stepAt(x, RANGE, 400))).toEqual([100, 100, 101, 299]);
  });

  it("stays within the range beyond its ends", () => {
    expect([-50, 400, 9999].map((x) => stepAt(x, RANGE, 400))).toEqual([100, 299, 299]);
  });

  it("labels whole steps only", () => {
    expect(stepTicks({ first: 3, last: 5 }, 900)).toEqual([3, 4, 5]);
    expect(stepTicks({ first: 0, last: 411 }, 500)).toEqual([0, 100, 200, 300, 400]);
    expect(stepTicks({ first: 7, last: 7 }, 500)).toEqual([7]);
  });
});

describe("spanAt", () => {
  it.each([
    [-5, 0],
    [0, 0],
    [9, 0],
    [10, 1],
    [19, 1],
    [500, 2],
  ])("maps step %d to span %d", (step, index) => {
    expect(spanAt(step, [0, 10, 20])).toBe(index);
  });

  it("returns -1 without spans", () => {
    expect(spanAt(3, [])).toBe(-1);
  });
});

describe("valueAxis", () => {
  it("places decades evenly on a log axis", () => {
    const axis = valueAxis([0.01, 1, 100], "log");
    expect(axis.place(1) - axis.place(0.01)).toBeCloseTo(axis.place(100) - axis.place(1));
    expect(axis.ticks).toEqual([0.01, 1, 100]);
  });

  it("keeps zero and negative values on a log axis, in order and symmetric about zero", () => {
    const { place, low, high, ticks } = valueAxis([-100, -1, 0, 1, 100], "log");
    expect(ticks).toEqual([-100, -10, 0, 10, 100]);
    const places = [-100, -1, 0, 1, 100].map(place);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(place(0)).toBe(0);
    expect(place(-100)).toBeCloseTo(-place(100));
    expect(places.every((at) => at >= low && at <= high)).toBe(true);
  });

  it("has round ticks on a log axis whose values are all within a decade of zero", () => {
    expect(valueAxis([-1, 0.5, 1], "log").ticks).toEqual([-1, 0, 1]);
  });

  it("keeps the tick at zero even beside a far end", () => {
    expect(valueAxis([-15, 1, 1e6], "log").ticks).toEqual([0, 10_000]);
  });

  it("covers the whole range of float32", () => {
    const { low, high, place, ticks } = valueAxis([1e-45, 3.4e38], "log");
    expect(place(1e-45)).toBeGreaterThan(low);
    expect(place(3.4e38)).toBeLessThan(high);
    expect(ticks.length).toBeGreaterThan(1);
  });

  it("has round ticks if the values span less than two decades", () => {
    expect(valueAxis([0.31, 0.38], "log").ticks).toEqual([0.32, 0.34, 0.36, 0.38]);
  });

  it("leaves out ticks that would overlap", () => {
    const { ticks, place, low, high } = valueAxis([0.06, 0.69], "log");
    const gaps = ticks.slice(1).map((tick, index) => place(tick) - place(ticks[index] ?? 0));
    expect(Math.min(...gaps)).toBeGreaterThan((high - low) / 6);
  });

  it.each([["log"], ["linear"]] as const)("gives a single value some height on a %s axis", (spacing) => {
    for (const value of [0, 5, -3]) {
      const { low, high, place } = valueAxis([value], spacing);
      expect(low).toBeLessThan(place(value));
      expect(high).toBeGreaterThan(place(value));
    }
  });

  it("lays out an axis even without values", () => {
    expect(valueAxis([], "log")).toMatchObject({ ticks: [0, 1] });
  });
});

describe("ticks", () => {
  it("skips decades that would stand too close", () => {
    expect(decadeTicks(-3, 8)).toEqual([1e-3, 1, 1e3, 1e6]);
  });

  it("counts in ones, twos and fives", () => {
    expect(evenTicks(0, 10)).toEqual([0, 5, 10]);
    expect(evenTicks(0, 0.7)).toEqual([0, 0.2, 0.4, 0.6]);
    expect(evenTicks(-1, 1)).toEqual([-1, -0.5, 0, 0.5, 1]);
  });
});
