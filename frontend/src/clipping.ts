/** Whether a session clips at all: of one that does not, the norms after clipping are those before, and the ratio is 1. Pure. */
import type { Curve, SeriesAnswer, StatKey } from "./protocol.gen";

const OF_CLIPPING: ReadonlySet<string> = new Set<StatKey>(["clipped_norm", "clip_ratio"]);

/** Tells whether a statistic says anything of its own. */
export function isTelling(stat: string, clips: boolean): boolean {
  return clips || !OF_CLIPPING.has(stat);
}

/** Tells whether a curve of clip ratios ever leaves 1. */
export function clipsAnything({ kinds, min }: Pick<Curve, "kinds" | "min">): boolean {
  return kinds.some((bits) => bits !== 0) || min.some((value) => value !== null && value !== 1);
}

/** What is known of a session's clipping. */
export interface Clipping {
  readonly run: string;
  readonly session: number;
  readonly clips: boolean;
}

/** Adds what an answer shows to what was known: steps without clipping, zoomed in on, do not undo it. */
export function clippingSeen(known: Clipping | null, { run, session, curves }: SeriesAnswer): Clipping {
  const isSame = known?.run === run && known.session === session;
  const ratio = curves.find(({ name }) => name === "clip_ratio");
  return { run, session, clips: (isSame && known.clips) || (ratio !== undefined && clipsAnything(ratio)) };
}
