/** The widths that the timeline and the heatmap share, so that a step has the same position in both. */
import type { RefObject } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";

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

/** Return the widths within an element; `null` before its first layout. */
export function useFrame(element: RefObject<HTMLElement | null>): Frame | null {
  const width = useWidth(element);
  if (width === 0) return null;
  const isNarrow = width < NARROW_BELOW;
  const gutter = isNarrow ? 92 : 200;
  return { width, gutter, plot: Math.max(80, width - gutter - RIGHT_MARGIN), isNarrow };
}

/** Measure an element's width; 0 before the first layout. A hidden tab has no width, so the last width stays. */
function useWidth(element: RefObject<HTMLElement | null>): number {
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const node = element.current;
    if (node === null) return;
    const measure = (): void => {
      if (node.clientWidth > 0) setWidth(node.clientWidth);
    };
    const observer = new ResizeObserver(measure);
    observer.observe(node);
    measure();
    return () => observer.disconnect();
  }, [element]);
  return width;
}
