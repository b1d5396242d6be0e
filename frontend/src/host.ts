/** The connection to TensorBoard: its messages, theme and address. The page also runs without TensorBoard. */
import { type DeepLink, isOwnTab, readLink, writeLink } from "./link";

export type Theme = "light" | "dark";

export interface HostEvents {
  /** TensorBoard has reloaded its data, or its list of runs has changed. */
  readonly onReload: () => void;
  readonly onTheme: (theme: Theme) => void;
  readonly onLink: (link: DeepLink) => void;
  /** The tab is shown or hidden. */
  readonly onShown: (isShown: boolean) => void;
}

export function connectHost(events: HostEvents): void {
  listenToMessages(events.onReload);
  watchTheme(events.onTheme);
  watchAddress(events.onLink);
  watchVisibility(events.onShown);
}

interface Message {
  readonly type: string;
  readonly id: number;
  readonly payload: unknown;
  readonly isReply: boolean;
}

function listenToMessages(onReload: () => void): void {
  if (window.parent === window) return;
  const { port1, port2 } = new MessageChannel();
  const isNews = createNewsFilter();
  port1.onmessage = ({ data }: MessageEvent<string>) => {
    const message = JSON.parse(data) as Message;
    if (message.isReply) return;
    // TensorBoard waits for an answer to each of its messages before it goes on.
    port1.postMessage(JSON.stringify({ ...message, payload: null, error: null, isReply: true }));
    if (isNews(message)) onReload();
  };
  window.parent.postMessage("experimental.bootstrap", "*", [port2]);
}

/**
 * Create a filter for messages that report new data.
 *
 * TensorBoard repeats its list of runs whenever its address changes, and the page changes the address itself.
 */
function createNewsFilter(): (message: Message) => boolean {
  let runs = "";
  return ({ type, payload }) => {
    if (type === "experimental.DataReloaded") return true;
    const now = JSON.stringify(payload);
    if (type !== "experimental.RunsChanged" || now === runs) return false;
    runs = now;
    return true;
  };
}

/** Follow the class on TensorBoard's body, or without TensorBoard, the system's preference. */
function watchTheme(onTheme: (theme: Theme) => void): void {
  const body = withParent((parent) => parent.document.body);
  if (body !== null) {
    const report = (): void => onTheme(body.classList.contains("dark-mode") ? "dark" : "light");
    new MutationObserver(report).observe(body, { attributes: true, attributeFilter: ["class"] });
    report();
    return;
  }
  const preference = matchMedia("(prefers-color-scheme: dark)");
  const report = (): void => onTheme(preference.matches ? "dark" : "light");
  preference.addEventListener("change", report);
  report();
}

function watchAddress(onLink: (link: DeepLink) => void): void {
  const report = (): void => {
    const hash = withParent((parent) => parent.location.hash);
    if (hash !== null && isOwnTab(hash)) onLink(readLink(hash));
  };
  withParent((parent) => parent.addEventListener("hashchange", report));
  report();
}

/** Write a link into TensorBoard's address, without a new entry in the browser's history. */
export function writeAddress(link: DeepLink): void {
  withParent((parent) => {
    const [page = "", hash = ""] = parent.location.href.split("#", 2);
    const wanted = writeLink(`#${hash}`, link);
    if (isOwnTab(hash) && wanted !== `#${hash}`) parent.location.replace(page + wanted);
  });
}

function watchVisibility(onShown: (isShown: boolean) => void): void {
  // A hidden frame has no height.
  const report = (): void => onShown(window.innerHeight > 0 && !document.hidden);
  new ResizeObserver(report).observe(document.documentElement);
  window.addEventListener("resize", report);
  document.addEventListener("visibilitychange", report);
}

/** Call a function with TensorBoard's window; `null` if there is no such window or the browser denies access. */
function withParent<T>(use: (parent: Window) => T): T | null {
  try {
    return window.parent === window ? null : use(window.parent);
  } catch {
    return null;
  }
}
