/** Followers: each keeps an answer up to date with its request. The newest request wins; the last good answer stays. */
import { batch, effect, type ReadonlySignal, type Signal, signal, untracked } from "@preact/signals";

/** An answer of the plugin, and the state of its request. */
export interface Resource<T> {
  readonly answer: Signal<T | null>;
  readonly failure: Signal<string | null>;
  /** Whether a new request waits for its answer. A repeated request does not count. */
  readonly pending: Signal<boolean>;
}

export function resource<T>(): Resource<T> {
  return { answer: signal<T | null>(null), failure: signal<string | null>(null), pending: signal(false) };
}

export interface FollowOptions<T> {
  /** The addresses to read, one per line. An empty request drops the answer. */
  readonly request: ReadonlySignal<string>;
  readonly target: Resource<T>;
  readonly decode: (answers: ReadonlyArray<unknown>) => T;
  readonly read: (url: string, signal: AbortSignal) => Promise<string>;
  /** How long a request must stay unchanged before it is sent. */
  readonly delayMs?: number;
}

export interface Follower {
  /** Send the request again, unless it is waiting for its answer. */
  refresh(): void;
  /** Send the request again if it failed the last time. */
  retry(): void;
  stop(): void;
}

/** Send `request` whenever it changes, and store the answer or the failure in `target`. */
export function follow<T>(options: FollowOptions<T>): Follower {
  const { request, target } = options;
  let running: AbortController | null = null;
  let last = { urls: "", text: "" };

  const load = async (urls: string): Promise<void> => {
    running?.abort();
    const control = new AbortController();
    running = control;
    target.pending.value = urls !== last.urls;
    const outcome = await readAnswer(urls, last.text, control.signal, options);
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

/** Read and decode the answers. If their text equals the shown text, nothing is decoded or drawn again. */
async function readAnswer<T>(
  urls: string,
  last: string,
  signal: AbortSignal,
  { read, decode, delayMs = 0 }: FollowOptions<T>,
): Promise<Outcome<T>> {
  try {
    if (delayMs > 0) await pause(delayMs, signal);
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
      reject(new Error("a newer request has replaced this request"));
    });
  });
}
