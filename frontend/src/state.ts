/** The state of the page: values that are set, and values derived from them. The actions in `actions.ts` set them. */
import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { alertUrl, heatmapUrl, type RunSession, seriesUrl } from "./api";
import { type Cell, columnSteps, findRow } from "./cells";
import { type Clipping, clippingSeen } from "./clipping";
import { type Resource, resource } from "./follow";
import { columnFigures, type HeatmapStat, isInformative, keepsOf } from "./heatmap_stats";
import type { Palette } from "./palette";
import type { AlertAnswer, HeatmapAnswer, SeriesAnswer, Verdict, Verdicts } from "./protocol.gen";
import { mostUrgent, type RunOrder } from "./runs";
import type { Spacing, StepRange } from "./scale";

export type Grouping = "layer" | "variable";

/** The choices of the user or of a link. The verdict decides where a choice is `null`. */
export interface Choices {
  readonly run: Signal<string | null>;
  readonly session: Signal<SessionChoice | null>;
  readonly cell: Signal<Cell | null>;
  readonly zoom: Signal<StepRange | null>;
  readonly grouping: Signal<Grouping>;
  readonly stat: Signal<HeatmapStat>;
  readonly spacing: Signal<Spacing>;
  readonly filter: Signal<string>;
  readonly order: Signal<RunOrder>;
}

/** A session other than the verdict's. */
export interface SessionChoice {
  readonly session: number;
  /** The verdict's session. */
  readonly home: number;
}

/** The plugin's answers. */
export interface Answers {
  readonly verdicts: Resource<Verdicts>;
  readonly series: Resource<SeriesAnswer>;
  readonly heatmap: Resource<HeatmapAnswer>;
  readonly alert: Resource<AlertAnswer>;
  readonly selected: Resource<ReadonlyArray<HeatmapAnswer>>;
  readonly hovered: Resource<ReadonlyArray<HeatmapAnswer>>;
}

/** Values derived from choices and answers. An answer about another run than the shown run counts as absent. */
export interface Derived {
  readonly verdict: ReadonlySignal<Verdict | null>;
  /** The verdict's step; `null` while another session is shown, since its steps are not the verdict's. */
  readonly badStep: ReadonlySignal<number | null>;
  readonly cell: ReadonlySignal<Cell | null>;
  readonly series: ReadonlySignal<SeriesAnswer | null>;
  readonly heatmap: ReadonlySignal<HeatmapAnswer | null>;
  readonly alert: ReadonlySignal<AlertAnswer | null>;
  readonly selected: ReadonlySignal<ReadonlyArray<HeatmapAnswer>>;
  readonly hovered: ReadonlySignal<ReadonlyArray<HeatmapAnswer>>;
  readonly range: ReadonlySignal<StepRange | null>;
  /** Whether the shown session clips any gradient, according to the answers so far. */
  readonly clips: ReadonlySignal<boolean>;
  /** The statistic that the heatmap shows: the chosen statistic, unless it says nothing about this session. */
  readonly stat: ReadonlySignal<HeatmapStat>;
  readonly failures: ReadonlySignal<ReadonlyArray<string>>;
}

/** The requests about the shown run; see `FollowOptions.request`. */
export type Requests = Readonly<Record<Exclude<keyof Answers, "verdicts">, ReadonlySignal<string>>>;

export interface State {
  readonly choices: Choices;
  readonly answers: Answers;
  readonly derived: Derived;
  readonly requests: Requests;
  /** The shown run, whether the user or the verdict chose it. */
  readonly shownRun: Signal<string | null>;
  /** The cell under the pointer. Over the timeline its layer is `null`. */
  readonly pointer: Signal<Cell | null>;
  readonly palette: Signal<Palette | null>;
}

const HEATMAP_COLUMNS = 300;

export function createState(): State {
  const choices = createChoices();
  const answers = createAnswers();
  const pointer = signal<Cell | null>(null);
  const shownRun = signal<string | null>(null);
  const derived = derive(choices, answers, shownRun);
  const requests = createRequests(choices, derived, pointer);
  const palette = signal<Palette | null>(null);
  return { choices, answers, derived, requests, shownRun, pointer, palette };
}

function createChoices(): Choices {
  return {
    run: signal<string | null>(null),
    session: signal<SessionChoice | null>(null),
    cell: signal<Cell | null>(null),
    zoom: signal<StepRange | null>(null),
    grouping: signal<Grouping>("layer"),
    stat: signal<HeatmapStat>("grad_norm"),
    spacing: signal<Spacing>("log"),
    filter: signal(""),
    order: signal<RunOrder>("status"),
  };
}

function createAnswers(): Answers {
  return {
    verdicts: resource(),
    series: resource(),
    heatmap: resource(),
    alert: resource(),
    selected: resource(),
    hovered: resource(),
  };
}

function derive(choices: Choices, answers: Answers, shownRun: ReadonlySignal<string | null>): Derived {
  const verdict = computed(() => {
    const runs = answers.verdicts.answer.value?.runs ?? [];
    return runs.find((run) => run.run === choices.run.value) ?? mostUrgent(runs, shownRun.value);
  });
  const onShownRun = <T extends { readonly run: string }>(
    answer: Signal<T | null>,
  ): ReadonlySignal<T | null> =>
    computed(() => (answer.value?.run === verdict.value?.run ? answer.value : null));
  const figuresOnShownRun = (answer: Answers["selected"]["answer"]): Derived["selected"] =>
    computed(() => (answer.value ?? []).filter((figure) => figure.run === verdict.value?.run));
  const series = onShownRun(answers.series.answer);
  const heatmap = onShownRun(answers.heatmap.answer);
  const clips = clipping(series);
  const culprit = computed(() => (choices.session.value === null ? culpritOf(verdict.value) : null));
  return {
    verdict,
    badStep: computed(() => culprit.value?.step ?? null),
    cell: computed(() => inHeatmap(choices.cell.value ?? culprit.value, heatmap.value)),
    series,
    heatmap,
    alert: onShownRun(answers.alert.answer),
    selected: figuresOnShownRun(answers.selected.answer),
    hovered: figuresOnShownRun(answers.hovered.answer),
    range: computed(() => choices.zoom.value ?? extent(series.value)),
    clips,
    stat: computed(() => (isInformative(choices.stat.value, clips.value) ? choices.stat.value : "grad_norm")),
    failures: computed(() => distinctFailures(answers)),
  };
}

/** Return whether the session clips, according to all answers about it so far. */
function clipping(series: ReadonlySignal<SeriesAnswer | null>): ReadonlySignal<boolean> {
  let known: Clipping | null = null;
  return computed(() => {
    known = series.value === null ? null : clippingSeen(known, series.value);
    return known?.clips ?? false;
  });
}

/** Return the cell that the verdict names. */
function culpritOf(verdict: Verdict | null): Cell | null {
  const first = verdict?.first ?? null;
  return first && { step: first.step, layer: first.layer, variable: first.variable };
}

/** Return a cell as the heatmap groups it: the cell of a layer or of a variable. */
function inHeatmap(cell: Cell | null, heatmap: HeatmapAnswer | null): Cell | null {
  const row = heatmap?.rows[findRow(heatmap.rows, cell)];
  return cell === null || row === undefined ? cell : { ...cell, variable: row.variable };
}

function extent(series: SeriesAnswer | null): StepRange | null {
  const first = series?.first_step[0];
  const last = series?.last_step[series.last_step.length - 1];
  return first === undefined || last === undefined ? null : { first, last };
}

function distinctFailures(answers: Answers): ReadonlyArray<string> {
  const failures = Object.values(answers).map((answer) => answer.failure.value);
  return [...new Set(failures.filter((failure) => failure !== null))];
}

function createRequests(choices: Choices, derived: Derived, pointer: Signal<Cell | null>): Requests {
  const session = computed<RunSession | null>(() => {
    const verdict = derived.verdict.value;
    const isEmpty = verdict === null || verdict.status === "empty";
    return isEmpty ? null : { run: verdict.run, session: choices.session.value?.session ?? null };
  });
  /** Return the addresses of all figures of a cell's column. */
  const column = (cell: ReadonlySignal<Cell | null>): ReadonlySignal<string> =>
    computed(() => {
      const shown = session.value;
      if (shown === null || cell.value === null || cell.value.layer === null) return "";
      const steps = columnSteps(derived.heatmap.value, cell.value.step);
      const by = choices.grouping.value;
      const url = (figure: { stat: string; keeps: string }): string =>
        heatmapUrl(shown, { by, ...figure }, steps, 1);
      return columnFigures(steps, derived.clips.value).map(url).join("\n");
    });
  return {
    series: computed(() => (session.value === null ? "" : seriesUrl(session.value, choices.zoom.value))),
    heatmap: computed(() =>
      session.value === null ? "" : mainHeatmap(session.value, choices, derived.stat.value),
    ),
    alert: computed(() => {
      const step = derived.verdict.value?.first?.step;
      return session.value === null || step === undefined ? "" : alertUrl(session.value.run, step);
    }),
    selected: column(derived.cell),
    hovered: column(pointer),
  };
}

function mainHeatmap(session: RunSession, { grouping, zoom }: Choices, stat: HeatmapStat): string {
  const choice = { by: grouping.value, stat, keeps: keepsOf(stat) };
  return heatmapUrl(session, choice, zoom.value, HEATMAP_COLUMNS);
}
