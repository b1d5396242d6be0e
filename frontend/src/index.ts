/** Puts the page together: the one place that knows all its parts. */
import { effect, signal } from "@preact/signals";
import { h, render as mount } from "preact";
import plotStyles from "uplot/dist/uPlot.min.css";
import { linkOf, openLink } from "./actions";
import { readText, VERDICTS_URL } from "./api";
import { decodeAlert, decodeHeatmap, decodeSeries, decodeVerdicts } from "./decode";
import { type Follower, follow } from "./follow";
import { connectHost, writeAddress } from "./host";
import { readPalette } from "./palette";
import { createState, type State } from "./state";
import styles from "./styles.css";
import { App } from "./views/app";

/** How often the plugin is asked for news while the page is on show. */
const POLL_EVERY_MS = 8_000;
/** A pointer on its way across the heatmap asks for nothing until it rests. */
const HOVER_SETTLE_MS = 90;
/** Held arrow keys write the address once, at the end. */
const ADDRESS_SETTLE_MS = 300;

/** Called once by TensorBoard when it has loaded this module into the plugin's frame. */
export function render(): void {
  addStyles();
  const state = createState();
  const followers = followAll(state);
  const refresh = (): void => {
    for (const follower of followers) follower.refresh();
  };
  const isShown = signal(true);
  connectHost({
    onReload: refresh,
    onTheme: (theme) => {
      document.documentElement.dataset.theme = theme;
      state.palette.value = readPalette(document.documentElement);
    },
    onLink: (link) => openLink(state, link),
    onShown: (shown) => {
      isShown.value = shown;
    },
  });
  pollWhileShown(isShown, refresh);
  keepAddress(state);
  mount(h(App, { state }), document.body);
}

function addStyles(): void {
  const element = document.createElement("style");
  element.textContent = plotStyles + styles;
  document.head.append(element);
  document.documentElement.lang = "en";
}

function followAll({ answers, requests }: State): ReadonlyArray<Follower> {
  const read = readText;
  return [
    follow({
      request: signal(VERDICTS_URL),
      target: answers.verdicts,
      decode: ([only]) => decodeVerdicts(only),
      read,
    }),
    follow({
      request: requests.series,
      target: answers.series,
      decode: ([only]) => decodeSeries(only),
      read,
    }),
    follow({
      request: requests.heatmap,
      target: answers.heatmap,
      decode: ([only]) => decodeHeatmap(only),
      read,
    }),
    follow({ request: requests.alert, target: answers.alert, decode: ([only]) => decodeAlert(only), read }),
    follow({
      request: requests.selected,
      target: answers.selected,
      decode: (all) => all.map(decodeHeatmap),
      read,
      settle_ms: HOVER_SETTLE_MS,
    }),
    follow({
      request: requests.hovered,
      target: answers.hovered,
      decode: (all) => all.map(decodeHeatmap),
      read,
      settle_ms: HOVER_SETTLE_MS,
    }),
  ];
}

function pollWhileShown(isShown: { readonly value: boolean }, refresh: () => void): void {
  effect(() => {
    if (!isShown.value) return;
    refresh();
    const timer = setInterval(refresh, POLL_EVERY_MS);
    return () => clearInterval(timer);
  });
}

function keepAddress(state: State): void {
  effect(() => {
    const link = linkOf(state);
    const timer = setTimeout(() => writeAddress(link), ADDRESS_SETTLE_MS);
    return () => clearTimeout(timer);
  });
}
