/** The shape that the timeline and the heatmap share, so that a step stands at the same place in both. */

/** Widths in CSS pixels: names and numbers to the left, the plot to the right of them. */
export interface Frame {
  readonly width: number;
  readonly gutter: number;
  readonly plot: number;
  readonly isNarrow: boolean;
}

/** Room for the heatmap's scroll bar. */
const RIGHT_MARGIN = 16;
const NARROW_BELOW = 680;

export function frameOf(width: number): Frame {
  const isNarrow = width < NARROW_BELOW;
  const gutter = isNarrow ? 92 : 200;
  return { width, gutter, plot: Math.max(80, width - gutter - RIGHT_MARGIN), isNarrow };
}
