/** Puts the page together: the one place that knows all its parts. */
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

/** How often the plugin is asked for news while the page is on show. */
const POLL_EVERY_MS = 5_000;
/** A pointer on its way across the heatmap asks for nothing until it rests. */
const HOVER_SETTLE_MS = 90;
/** Held arrow keys write the address once, at the end. */
const ADDRESS_SETTLE_MS = 300;

/** Called once by TensorBoard when it has loaded this module into the plugin's frame. */
export function render(): void {
  addStyles();
  const state = createState();
  const { verdicts, ofRun } = followAll(state);
  const isShown = signal(true);
  connectHost({
    onReload: () => refreshAll([verdicts, ...ofRun]),
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
    for (const follower of ofRun) follower.retry();
  });
  refreshWithVerdict(state, ofRun);
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
  /** Of what is shown of one run. */
  readonly ofRun: ReadonlyArray<Follower>;
}

function followAll({ answers, requests }: State): Followers {
  const read = readText;
  const figures = (name: "selected" | "hovered"): Follower =>
    follow({
      request: requests[name],
      target: answers[name],
      decode: (all) => all.map(decodeHeatmap),
      read,
      settleMs: HOVER_SETTLE_MS,
    });
  const { series, heatmap, alert } = answers;
  return {
    verdicts: follow({
      request: signal(VERDICTS_URL),
      target: answers.verdicts,
      decode: ([only]) => decodeVerdicts(only),
      read,
    }),
    ofRun: [
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

/** A run that has new steps has a new verdict; as long as it has not, its charts need not be asked for again. */
function refreshWithVerdict({ derived }: State, ofRun: ReadonlyArray<Follower>): void {
  const verdict = computed(() => JSON.stringify(derived.verdict.value));
  effect(() => {
    if (verdict.value !== "null") untracked(() => refreshAll(ofRun));
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
    const timer = setTimeout(() => writeAddress(link), ADDRESS_SETTLE_MS);
    return () => clearTimeout(timer);
  });
}
