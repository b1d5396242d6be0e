/** The page around the page: TensorBoard's messages, theme and address. Alone, without TensorBoard, all of it is optional. */
import { type DeepLink, isOwnTab, readLink, writeLink } from "./link";

export type Theme = "light" | "dark";

export interface HostEvents {
  /** TensorBoard has reloaded its data, or its list of runs has changed. */
  readonly onReload: () => void;
  readonly onTheme: (theme: Theme) => void;
  readonly onLink: (link: DeepLink) => void;
  /** The tab is shown or hidden; a hidden frame has no height. */
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
  const isNews = newsFilter();
  port1.onmessage = ({ data }: MessageEvent<string>) => {
    const message = JSON.parse(data) as Message;
    if (message.isReply) return;
    // TensorBoard waits for an answer to each of its messages before it goes on.
    port1.postMessage(JSON.stringify({ ...message, payload: null, error: null, isReply: true }));
    if (isNews(message)) onReload();
  };
  window.parent.postMessage("experimental.bootstrap", "*", [port2]);
}

/** TensorBoard repeats its list of runs whenever its address changes, which the page itself brings about. */
function newsFilter(): (message: Message) => boolean {
  let runs = "";
  return ({ type, payload }) => {
    if (type === "experimental.DataReloaded") return true;
    const now = JSON.stringify(payload);
    if (type !== "experimental.RunsChanged" || now === runs) return false;
    runs = now;
    return true;
  };
}

/** TensorBoard marks its body; where there is no TensorBoard, the system's preference holds. */
function watchTheme(onTheme: (theme: Theme) => void): void {
  const body = ofParent((parent) => parent.document.body);
  if (body !== null) {
    const tell = (): void => onTheme(body.classList.contains("dark-mode") ? "dark" : "light");
    new MutationObserver(tell).observe(body, { attributes: true, attributeFilter: ["class"] });
    tell();
    return;
  }
  const preference = matchMedia("(prefers-color-scheme: dark)");
  const tell = (): void => onTheme(preference.matches ? "dark" : "light");
  preference.addEventListener("change", tell);
  tell();
}

function watchAddress(onLink: (link: DeepLink) => void): void {
  const tell = (): void => {
    const hash = ofParent((parent) => parent.location.hash);
    if (hash !== null && isOwnTab(hash)) onLink(readLink(hash));
  };
  ofParent((parent) => parent.addEventListener("hashchange", tell));
  tell();
}

/** Writes what is chosen into TensorBoard's address, without adding to the browser's history. */
export function writeAddress(link: DeepLink): void {
  ofParent((parent) => {
    const [page = "", hash = ""] = parent.location.href.split("#", 2);
    const wanted = writeLink(`#${hash}`, link);
    if (isOwnTab(hash) && wanted !== `#${hash}`) parent.location.replace(page + wanted);
  });
}

function watchVisibility(onShown: (isShown: boolean) => void): void {
  const tell = (): void => onShown(window.innerHeight > 0 && !document.hidden);
  new ResizeObserver(tell).observe(document.documentElement);
  window.addEventListener("resize", tell);
  document.addEventListener("visibilitychange", tell);
}

/** Runs something on TensorBoard's window; `null` where there is none, or where it may not be touched. */
function ofParent<T>(use: (parent: Window) => T): T | null {
  try {
    return window.parent === window ? null : use(window.parent);
  } catch {
    return null;
  }
}
