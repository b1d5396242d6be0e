/** The colours of canvas drawings, read from the style sheet so that each colour is defined once. */
import { viridis } from "./colour";

export interface Palette {
  readonly background: string;
  readonly muted: string;
  readonly line: string;
  readonly zero: string;
  readonly nonfinite: string;
  readonly nonfiniteWash: string;
  readonly curves: ReadonlyArray<string>;
}

export function readPalette(root: HTMLElement): Palette {
  const style = getComputedStyle(root);
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    background: colour("surface"),
    muted: colour("muted"),
    line: colour("line"),
    zero: colour("zero"),
    nonfinite: colour("nonfinite"),
    nonfiniteWash: colour("nonfinite-wash"),
    curves: [colour("curve-0"), colour("curve-1"), colour("curve-2")],
  };
}

/** Return the colour map as a CSS gradient, dark to bright. */
export function viridisGradient(stops = 16): string {
  const colours = Array.from({ length: stops + 1 }, (_, index) => `rgb(${viridis(index / stops).join(" ")})`);
  return `linear-gradient(to right, ${colours.join(", ")})`;
}
