/** The statistics that the heatmap can show. Pure. */
import type { StatKey } from "./protocol.gen";
import type { StepRange } from "./scale";

type Merge = "min" | "max" | "mean";

interface StatEntry {
  readonly stat: StatKey;
  readonly label: string;
  /** What a column of several steps shows. */
  readonly keeps: Merge;
  /** What the numbers of such a column say beyond that. */
  readonly details: ReadonlyArray<Merge>;
  /** Without clipping, a norm after clipping equals the norm before, and a clip ratio is 1. */
  readonly isOfClipping: boolean;
}

/** The statistics to choose from, in the order of the data flow. To add a statistic, add an entry. */
export const HEATMAP_STATS = [
  { stat: "grad_norm", label: "Gradient norm", keeps: "max", details: ["min", "mean"], isOfClipping: false },
  { stat: "clipped_norm", label: "After clipping", keeps: "max", details: [], isOfClipping: true },
  { stat: "clip_ratio", label: "Clip ratio", keeps: "min", details: [], isOfClipping: true },
  { stat: "weight_norm", label: "Weight norm", keeps: "max", details: [], isOfClipping: false },
] as const satisfies ReadonlyArray<StatEntry>;

export type HeatmapStat = (typeof HEATMAP_STATS)[number]["stat"];

function entryOf(stat: string): StatEntry | undefined {
  return HEATMAP_STATS.find((entry) => entry.stat === stat);
}

export function statLabel(stat: string): string {
  return entryOf(stat)?.label ?? stat;
}

export function keepsOf(stat: HeatmapStat): Merge {
  return entryOf(stat)?.keeps ?? "max";
}

/** Return whether a statistic says anything that another does not. */
export function isInformative(stat: HeatmapStat, clips: boolean): boolean {
  return clips || entryOf(stat)?.isOfClipping !== true;
}

interface Figure {
  readonly stat: HeatmapStat;
  readonly keeps: Merge;
}

/** List the figures of a column to request. For a single step, minimum, maximum and mean are equal. */
export function columnFigures(steps: StepRange, clips: boolean): ReadonlyArray<Figure> {
  const isSingle = steps.first === steps.last;
  return HEATMAP_STATS.filter(({ stat }) => isInformative(stat, clips)).flatMap(({ stat, keeps, details }) =>
    (isSingle ? [keeps] : [keeps, ...details]).map((merge) => ({ stat, keeps: merge })),
  );
}
