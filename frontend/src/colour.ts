/** The colours of the heatmap: a perceptually uniform map over the logarithm of a norm. Pure. */
import { apart, decadeTicks, evenTicks } from "./scale";

export type Rgb = readonly [red: number, green: number, blue: number];

/** Coefficients of a fit of degree six to matplotlib's viridis: a row each for red, green and blue, constant term first. */
const VIRIDIS: ReadonlyArray<ReadonlyArray<number>> = [
  [0.27773, 0.10509, -0.33086, -4.63423, 6.22827, 4.77638, -5.43546],
  [0.00541, 1.40461, 0.21485, -5.7991, 14.17993, -13.74515, 4.64585],
  [0.3341, 1.38459, 0.0951, -19.33244, 56.69055, -65.35303, 26.31244],
];

/** Return the map's colour at a position from 0 (dark) to 1 (bright). Lightness grows evenly. */
export function viridis(position: number): Rgb {
  const at = Math.min(1, Math.max(0, position));
  const [red = 0, green = 0, blue = 0] = VIRIDIS.map((terms) => channel(terms, at));
  return [red, green, blue];
}

function channel(terms: ReadonlyArray<number>, at: number): number {
  const value = terms.reduceRight((sum, term) => sum * at + term, 0);
  return Math.round(255 * Math.min(1, Math.max(0, value)));
}

/** The ends of the colour map, as exponents of ten. */
export interface ColourDomain {
  readonly low: number;
  readonly high: number;
}

/** This share of the cells may saturate at each end, so that a single spike does not flatten all other cells. */
const SATURATED_SHARE = 0.02;

/**
 * Choose the ends of the map for the positive values of a heatmap.
 *
 * The ends are quantiles. In a run that explodes from 1 to 1e38 within a step, a map between the extremes would paint
 * all earlier steps in the same colour.
 */
export function colourDomain(values: ReadonlyArray<ReadonlyArray<number | null>>): ColourDomain {
  const exponents = Float64Array.from(values.flatMap(positiveExponents)).sort();
  if (exponents.length === 0) return { low: 0, high: 1 };
  const margin = Math.floor(exponents.length * SATURATED_SHARE);
  const low = exponents[margin] ?? 0;
  const high = exponents[exponents.length - 1 - margin] ?? low;
  if (high - low >= 1) return { low, high };
  return widened(exponents[0] ?? low, exponents[exponents.length - 1] ?? high);
}

function positiveExponents(row: ReadonlyArray<number | null>): number[] {
  const exponents: number[] = [];
  for (const value of row) if (value !== null && value > 0) exponents.push(Math.log10(value));
  return exponents;
}

/** Widen a range to at least a tenth of a decade, so that rounding noise does not span the whole map. */
function widened(low: number, high: number): ColourDomain {
  const missing = Math.max(0, 0.1 - (high - low)) / 2;
  return { low: low - missing, high: high + missing };
}

/** Return the position of a positive value on the map, from 0 to 1. Values beyond the ends saturate. */
export function colourPosition(value: number, domain: ColourDomain): number {
  const position = (Math.log10(value) - domain.low) / (domain.high - domain.low);
  return Math.min(1, Math.max(0, position));
}

/** Return the values to label on the map: powers of ten, or round numbers if it holds fewer than two powers. */
export function colourTicks(domain: ColourDomain): ReadonlyArray<number> {
  const decades = decadeTicks(domain.low, domain.high, 5);
  if (decades.length >= 2) return decades;
  const even = evenTicks(10 ** domain.low, 10 ** domain.high, 5);
  return apart(even, (value) => colourPosition(value, domain), 0.15);
}
