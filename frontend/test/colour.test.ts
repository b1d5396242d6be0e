import { describe, expect, it } from "vitest";
import { colourDomain, colourPosition, colourTicks, viridis } from "../src/colour";

/** Relative luminance, as WCAG 2 defines it. */
function luminance(colour: readonly [number, number, number]): number {
  const [red = 0, green = 0, blue = 0] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

describe("viridis", () => {
  it("is within 6 of 255 of matplotlib's map", () => {
    const known: ReadonlyArray<readonly [number, readonly number[]]> = [
      [0, [68, 1, 84]],
      [0.25, [59, 82, 139]],
      [0.5, [33, 145, 140]],
      [0.75, [94, 201, 98]],
      [1, [253, 231, 37]],
    ];
    for (const [at, colour] of known) {
      const distances = viridis(at).map((value, index) => Math.abs(value - (colour[index] ?? 0)));
      expect(Math.max(...distances)).toBeLessThanOrEqual(6);
    }
  });

  it("grows lighter at every step, so that it is readable without colour", () => {
    const lights = Array.from({ length: 51 }, (_, index) => luminance(viridis(index / 50)));
    expect(lights.slice(1).every((light, index) => light > (lights[index] ?? 0))).toBe(true);
  });
});

describe("colourDomain", () => {
  it("spans the exponents of the positive values", () => {
    expect(colourDomain([[0.01, null, 0], [100]])).toEqual({ low: -2, high: 2 });
  });

  it("lets a spike saturate instead of flattening all other values", () => {
    const values = [...Array.from({ length: 99 }, (_, index) => 10 ** (index % 3)), 1e38];
    expect(colourDomain([values])).toEqual({ low: 0, high: 2 });
  });

  it("has some width even for equal values and without values", () => {
    expect(colourDomain([[1, 1]])).toEqual({ low: -0.05, high: 0.05 });
    expect(colourDomain([[null, 0]])).toEqual({ low: 0, high: 1 });
  });
});

describe("colourPosition", () => {
  it("is even over the exponents and saturates at the ends", () => {
    const domain = { low: -2, high: 2 };
    expect([1e-9, 0.01, 1, 100, 1e9].map((value) => colourPosition(value, domain))).toEqual([
      0, 0, 0.5, 1, 1,
    ]);
  });
});

describe("colourTicks", () => {
  it("labels decades if there are two or more, else round numbers", () => {
    expect(colourTicks({ low: -1.2, high: 2.1 })).toEqual([0.1, 1, 10, 100]);
    expect(colourTicks({ low: Math.log10(2), high: Math.log10(8) })).toEqual([2, 4, 6, 8]);
    expect(colourTicks({ low: Math.log10(9), high: Math.log10(72) })).toEqual([20, 40, 60]);
  });
});
