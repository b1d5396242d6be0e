/** Whether a session clips its gradients. Pure. */
import type { SeriesAnswer } from "./protocol.gen";

/** Return whether any clip ratio of an answer is other than 1. */
export function isClipping({ curves }: Pick<SeriesAnswer, "curves">): boolean {
  const ratio = curves.find(({ name }) => name === "clip_ratio");
  if (ratio === undefined) return false;
  return ratio.kinds.some((bits) => bits !== 0) || ratio.min.some((value) => value !== null && value !== 1);
}

/** What is known of a session's clipping. */
export interface Clipping {
  readonly run: string;
  readonly session: number;
  readonly clips: boolean;
}

/** Add an answer to what is known. A zoom into steps without clipping does not undo it. */
export function clippingSeen(known: Clipping | null, series: SeriesAnswer): Clipping {
  const { run, session } = series;
  const isSame = known?.run === run && known.session === session;
  return { run, session, clips: (isSame && known.clips) || isClipping(series) };
}
