/** The positions of values and steps on the screen, and the ticks of axes. Pure. */

/** A range of steps, both ends included. */
export interface StepRange {
  readonly first: number;
  readonly last: number;
}

/** Count the steps of a range. */
export function stepCount(range: StepRange): number {
  return range.last - range.first + 1;
}

/** Return where a step begins, in pixels. It ends where the next step begins. */
export function edgeOf(step: number, range: StepRange, width: number): number {
  return ((step - range.first) / stepCount(range)) * width;
}

/** Return the step at a pixel, limited to the range. */
export function stepAt(x: number, range: StepRange, width: number): number {
  const step = range.first + Math.floor((x / width) * stepCount(range));
  return Math.min(range.last, Math.max(range.first, step));
}

/** Return the index of the span that holds a step, or of the nearest span; -1 without spans. `firsts` increases. */
export function spanAt(step: number, firsts: ReadonlyArray<number>): number {
  let low = 0;
  let high = firsts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((firsts[middle] ?? Number.POSITIVE_INFINITY) <= step) low = middle + 1;
    else high = middle;
  }
  return Math.min(Math.max(0, low - 1), firsts.length - 1);
}

export type Spacing = "log" | "linear";

/** An axis of values. `place` maps a value to a position; positions run evenly from `low` to `high`. */
export interface ValueAxis {
  readonly place: (value: number) => number;
  readonly low: number;
  readonly high: number;
  readonly ticks: ReadonlyArray<number>;
}

/** How many decades below its largest value a log axis shows if it also shows zero or negative values. */
const SYMLOG_DECADES = 6;
const TICKS = 4;

/**
 * Lay out an axis over values.
 *
 * A log axis also shows zeros and negative values. It is then symmetric about zero, and linear within the smallest
 * decade that it shows.
 */
export function valueAxis(values: ReadonlyArray<number>, spacing: Spacing): ValueAxis {
  if (values.length === 0) return padded(identity, 0, 1, [0, 1]);
  const [least, most] = extent(values);
  if (spacing === "linear") return linearAxis(least, most);
  return least > 0 ? logAxis(least, most) : symlogAxis(values, least, most);
}

function identity(value: number): number {
  return value;
}

function extent(values: ReadonlyArray<number>): [least: number, most: number] {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

function padded(
  place: ValueAxis["place"],
  least: number,
  most: number,
  ticks: ReadonlyArray<number>,
): ValueAxis {
  const [low, high] = [place(least), place(most)];
  const margin = high > low ? (high - low) * 0.06 : Math.abs(low) * 0.1 || 1;
  return { place, low: low - margin, high: high + margin, ticks: apart(ticks, place, (high - low) / 5) };
}

/** Leave out ticks that would overlap the tick before: numbers at equal distances crowd together on a log axis. */
export function apart(
  ticks: ReadonlyArray<number>,
  place: ValueAxis["place"],
  gap: number,
): ReadonlyArray<number> {
  let last = Number.NEGATIVE_INFINITY;
  return ticks.filter((tick) => {
    const isApart = place(tick) - last >= gap;
    if (isApart) last = place(tick);
    return isApart;
  });
}

function linearAxis(least: number, most: number): ValueAxis {
  return padded(identity, least, most, evenTicks(least, most));
}

function logAxis(least: number, most: number): ValueAxis {
  const decades = decadeTicks(Math.log10(least), Math.log10(most));
  return padded(Math.log10, least, most, decades.length >= 2 ? decades : evenTicks(least, most));
}

function symlogAxis(values: ReadonlyArray<number>, least: number, most: number): ValueAxis {
  const sizes = values.map(Math.abs).filter((size) => size > 0);
  if (sizes.length === 0) return linearAxis(least, most);
  const [smallest, largest] = extent(sizes);
  const unit = Math.max(smallest, largest / 10 ** SYMLOG_DECADES);
  const place = (value: number): number => Math.sign(value) * Math.log10(1 + Math.abs(value) / unit);
  const axis = padded(place, least, most, []);
  const ticks = symlogTicks({ least, most, unit }).filter(
    // Zero always stays, since it is the point of such an axis. The ticks too close to it are left out.
    (tick) => tick === 0 || Math.abs(place(tick)) >= (axis.high - axis.low) / 5,
  );
  return padded(place, least, most, ticks.length > 1 ? ticks : evenTicks(least, most, TICKS / 2));
}

function symlogTicks(bounds: { least: number; most: number; unit: number }): ReadonlyArray<number> {
  const reach = (limit: number): ReadonlyArray<number> =>
    limit > 0 ? decadeTicks(Math.log10(bounds.unit) + 1, Math.log10(limit), TICKS / 2) : [];
  const negative = reach(-bounds.least).map((tick) => -tick);
  return [...negative.reverse(), 0, ...reach(bounds.most)];
}

/** Return powers of ten between two exponents, at most `most` of them. */
export function decadeTicks(lowExponent: number, highExponent: number, most = TICKS): ReadonlyArray<number> {
  const first = Math.ceil(lowExponent - 1e-9);
  const last = Math.floor(highExponent + 1e-9);
  const stride = Math.max(1, Math.ceil((last - first + 1) / most));
  const ticks: number[] = [];
  for (let exponent = first; exponent <= last; exponent += stride) ticks.push(Number(`1e${exponent}`));
  return ticks;
}

/** Return round numbers between two ends. Their distance is 1, 2 or 5 times a power of ten. */
export function evenTicks(low: number, high: number, most = TICKS): ReadonlyArray<number> {
  if (!(high > low)) return [low];
  const stride = roundUp((high - low) / most);
  const ticks: number[] = [];
  const last = Math.floor(high / stride + 1e-9);
  for (let index = Math.ceil(low / stride - 1e-9); index <= last; index++) ticks.push(clean(index * stride));
  return ticks;
}

function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= value * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** Remove the rounding error of the product of a whole number and a stride. */
function clean(value: number): number {
  return Number(value.toPrecision(12));
}

/** Return the steps to label along a range, about one per `spacing` pixels. */
export function stepTicks(range: StepRange, width: number, spacing = 90): ReadonlyArray<number> {
  const most = Math.max(1, Math.floor(width / spacing));
  if (range.first === range.last) return [range.first];
  return evenTicks(range.first, range.last, most).filter(Number.isInteger);
}
