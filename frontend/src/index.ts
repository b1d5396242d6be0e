/** The entry point, which connects all parts of the page. */
import { computed, effect, signal, untracked } from "@preact/signals";
import { h, render as mount } from "preact";
import plotStyles from "uplot/dist/uPlot.min.css";
import { linkOf, openLink } from "./actions";
import { readText, VERDICTS_URL } from "./api";
import { type Follower, follow } from "./follow";
import { connectHost, writeAddress } from "./host";
import { readPalette } from "./palette";
import { decodeAlert, decodeHeatmap, decodeSeries, decodeVerdicts } from "./protocol.gen";
import { createState, type State } from "./state";
import styles from "./styles.css";
import { App } from "./views/app";

/** The interval between two requests for the verdicts while the page is shown. */
const POLL_EVERY_MS = 5_000;
/** A pointer that moves across the heatmap sends no request until it rests. */
const HOVER_DELAY_MS = 90;
/** A held arrow key changes the address only once, at the end. */
const ADDRESS_DELAY_MS = 300;

/** Build the page. TensorBoard calls this once, when it has loaded this module into the plugin's frame. */
export function render(): void {
  addStyles();
  const state = createState();
  const { verdicts, shownRun } = followAll(state);
  const isShown = signal(true);
  connectHost({
    onReload: () => refreshAll([verdicts, ...shownRun]),
    onTheme: (theme) => {
      document.documentElement.dataset.theme = theme;
      state.palette.value = readPalette(document.documentElement);
    },
    onLink: (link) => openLink(state, link),
    onShown: (shown) => {
      isShown.value = shown;
    },
  });
  pollWhileShown(isShown, () => {
    verdicts.refresh();
    for (const follower of shownRun) follower.retry();
  });
  refreshWithVerdict(state, shownRun);
  rememberRun(state);
  keepAddress(state);
  mount(h(App, { state }), document.body);
}

function addStyles(): void {
  const element = document.createElement("style");
  element.textContent = plotStyles + styles;
  document.head.append(element);
  document.documentElement.lang = "en";
}

interface Followers {
  readonly verdicts: Follower;
  /** The answers about the shown run. */
  readonly shownRun: ReadonlyArray<Follower>;
}

function followAll({ answers, requests }: State): Followers {
  const read = readText;
  const figures = (name: "selected" | "hovered"): Follower =>
    follow({
      request: requests[name],
      target: answers[name],
      decode: (all) => all.map(decodeHeatmap),
      read,
      delayMs: HOVER_DELAY_MS,
    });
  const { series, heatmap, alert } = answers;
  return {
    verdicts: follow({
      request: signal(VERDICTS_URL),
      target: answers.verdicts,
      decode: ([only]) => decodeVerdicts(only),
      read,
    }),
    shownRun: [
      follow({ request: requests.series, target: series, decode: ([only]) => decodeSeries(only), read }),
      follow({ request: requests.heatmap, target: heatmap, decode: ([only]) => decodeHeatmap(only), read }),
      follow({ request: requests.alert, target: alert, decode: ([only]) => decodeAlert(only), read }),
      figures("selected"),
      figures("hovered"),
    ],
  };
}

function refreshAll(followers: ReadonlyArray<Follower>): void {
  for (const follower of followers) follower.refresh();
}

/** Refresh the charts when the verdict changes: it changes with every new step of the run. */
function refreshWithVerdict({ derived }: State, followers: ReadonlyArray<Follower>): void {
  const verdict = computed(() => JSON.stringify(derived.verdict.value));
  effect(() => {
    if (verdict.value !== "null") untracked(() => refreshAll(followers));
  });
}

function pollWhileShown(isShown: { readonly value: boolean }, poll: () => void): void {
  effect(() => {
    if (!isShown.value) return;
    untracked(poll);
    const timer = setInterval(poll, POLL_EVERY_MS);
    return () => clearInterval(timer);
  });
}

function rememberRun({ derived, shownRun }: State): void {
  effect(() => {
    shownRun.value = derived.verdict.value?.run ?? null;
  });
}

function keepAddress(state: State): void {
  effect(() => {
    const link = linkOf(state);
    const timer = setTimeout(() => writeAddress(link), ADDRESS_DELAY_MS);
    return () => clearTimeout(timer);
  });
}
