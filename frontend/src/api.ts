/** Requests to the plugin: the addresses of its routes, and the fetch. */
import type { StepRange } from "./scale";

/** The parameters of an address. The plugin chooses the value where a parameter is `null`. */
type Parameters = Readonly<Record<string, string | number | null>>;

export interface RunSession {
  readonly run: string;
  readonly session: number | null;
}

export interface HeatmapChoice {
  readonly by: "layer" | "variable";
  readonly stat: string;
  readonly keeps: string;
}

export const VERDICTS_URL = "./verdicts";

const SERIES_POINTS = 600;

export function seriesUrl(shown: RunSession, range: StepRange | null): string {
  return address("series", { ...shown, ...bounds(range), points: SERIES_POINTS });
}

export function heatmapUrl(
  shown: RunSession,
  choice: HeatmapChoice,
  range: StepRange | null,
  columns: number,
): string {
  return address("heatmap", { ...shown, ...choice, ...bounds(range), columns });
}

export function alertUrl(run: string, step: number): string {
  return address("alert", { run, step });
}

function bounds(range: StepRange | null): Parameters {
  return { first: range?.first ?? null, last: range?.last ?? null };
}

/** Return a relative address, which also works below a path prefix, behind a proxy and under `/experiment/ID/`. */
function address(route: string, parameters: Parameters): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) if (value !== null) query.set(key, String(value));
  return `./${route}?${query}`;
}

/** Fetch the text of an answer. If the plugin reports an error, throw it with the plugin's sentence. */
export async function readText(url: string, signal: AbortSignal): Promise<string> {
  const response = await reach(url, signal);
  const text = await response.text();
  if (response.ok) return text;
  throw new Error(
    isSentence(response) && text !== "" ? text : `TensorBoard answered ${response.status} to ${url}.`,
  );
}

async function reach(url: string, signal: AbortSignal): Promise<Response> {
  try {
    return await fetch(url, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Error(
      "TensorBoard does not answer. What was read last stays on the page; it is asked again shortly.",
    );
  }
}

function isSentence(response: Response): boolean {
  return (response.headers.get("Content-Type") ?? "").startsWith("text/plain");
}
