/** The widths that the timeline and the heatmap share, so that a step has the same position in both. */

/** Widths in CSS pixels. The gutter on the left holds names and numbers; the plot is on its right. */
export interface Frame {
  readonly width: number;
  readonly gutter: number;
  readonly plot: number;
  readonly isNarrow: boolean;
}

/** Space for the heatmap's scroll bar. */
const RIGHT_MARGIN = 16;
const NARROW_BELOW = 680;

export function frameOf(width: number): Frame {
  const isNarrow = width < NARROW_BELOW;
  const gutter = isNarrow ? 92 : 200;
  return { width, gutter, plot: Math.max(80, width - gutter - RIGHT_MARGIN), isNarrow };
}
