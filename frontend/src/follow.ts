/** Keeps an answer in step with the request for it: newest request wins, last good answer stays. */
import { batch, effect, type ReadonlySignal, type Signal, signal, untracked } from "@preact/signals";

/** Something that is asked of the plugin. */
export interface Resource<T> {
  readonly answer: Signal<T | null>;
  readonly failure: Signal<string | null>;
  /** What is shown is not what is asked for, yet. Asking again for the same thing does not count. */
  readonly pending: Signal<boolean>;
}

export function resource<T>(): Resource<T> {
  return { answer: signal<T | null>(null), failure: signal<string | null>(null), pending: signal(false) };
}

export interface FollowOptions<T> {
  /** Addresses to ask, one a line; empty to ask nothing and forget the answer. */
  readonly request: ReadonlySignal<string>;
  readonly target: Resource<T>;
  readonly decode: (answers: ReadonlyArray<unknown>) => T;
  readonly read: (url: string, signal: AbortSignal) => Promise<string>;
  /** How long a request must stand before it is sent. */
  readonly settleMs?: number;
}

export interface Follower {
  /** Asks again for what is shown, unless it is being asked for. */
  refresh(): void;
  /** Asks again if what came last was a failure. */
  retry(): void;
  stop(): void;
}

/** Asks for `request` whenever it changes, and puts what comes into `target`. */
export function follow<T>(options: FollowOptions<T>): Follower {
  const { request, target } = options;
  let running: AbortController | null = null;
  let last = { urls: "", text: "" };

  const load = async (urls: string): Promise<void> => {
    running?.abort();
    const control = new AbortController();
    running = control;
    target.pending.value = urls !== last.urls;
    const outcome = await ask(urls, last.text, control.signal, options);
    if (control.signal.aborted) return;
    running = null;
    if ("text" in outcome) last = { urls, text: outcome.text };
    batch(() => show(target, outcome));
  };
  const forget = (): void => {
    running?.abort();
    running = null;
    last = { urls: "", text: "" };
    batch(() => show(target, { answer: null, text: "" }));
  };
  const stop = effect(() => {
    const urls = request.value;
    untracked(() => (urls === "" ? forget() : void load(urls)));
  });
  const refresh = (): void => {
    if (request.peek() !== "" && running === null) void load(request.peek());
  };
  return {
    refresh,
    retry: () => {
      if (target.failure.peek() !== null) refresh();
    },
    stop: () => {
      stop();
      running?.abort();
    },
  };
}

function show<T>(target: Resource<T>, outcome: Outcome<T | null>): void {
  if ("answer" in outcome) target.answer.value = outcome.answer;
  target.failure.value = "failure" in outcome ? outcome.failure : null;
  target.pending.value = false;
}

type Outcome<T> =
  | { readonly answer: T; readonly text: string }
  | { readonly text: string }
  | { readonly failure: string };

/** Asks, and tells what came. An answer that is letter for letter the one shown is not decoded and not drawn again. */
async function ask<T>(
  urls: string,
  last: string,
  signal: AbortSignal,
  { read, decode, settleMs = 0 }: FollowOptions<T>,
): Promise<Outcome<T>> {
  try {
    if (settleMs > 0) await pause(settleMs, signal);
    const texts = await Promise.all(urls.split("\n").map((url) => read(url, signal)));
    const text = texts.join("\n");
    return text === last ? { text } : { answer: decode(texts.map(parse)), text };
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(
      "The plugin's answer must be JSON, and is not. Is a proxy in between that answers itself?",
    );
  }
}

function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, durationMs);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Error("a newer request took this one's place"));
    });
  });
}
