/** What the page puts into TensorBoard's address, so that a verdict can be sent to a colleague. Pure. */

export interface DeepLink {
  readonly run: string | null;
  readonly step: number | null;
  readonly layer: string | null;
}

const PREFIX = "p.nanwatch.";

/** Reads the page's keys from a fragment such as `#nanwatch&p.nanwatch.run=relu&p.nanwatch.step=411`. */
export function readLink(hash: string): DeepLink {
  const found = new Map(ownPairs(hash));
  const step = Number(found.get("step") ?? Number.NaN);
  return {
    run: found.get("run") ?? null,
    step: Number.isInteger(step) ? step : null,
    layer: found.get("layer") ?? null,
  };
}

/** Puts the page's keys into a fragment; the tab's name and the keys of others stay as they are. */
export function writeLink(hash: string, link: DeepLink): string {
  const foreign = tokens(hash).filter((token) => !token.startsWith(PREFIX));
  const own = Object.entries(link)
    .filter(([, value]) => value !== null)
    .map(([key, value]) => `${PREFIX}${key}=${encodeURIComponent(String(value))}`);
  return `#${[...foreign, ...own].join("&")}`;
}

/** Tells whether a fragment shows this plugin's tab: another tab's address is not the page's to change. */
export function isOwnTab(hash: string): boolean {
  return tokens(hash)[0] === "nanwatch";
}

function tokens(hash: string): string[] {
  return hash.replace(/^#/, "").split("&");
}

function ownPairs(hash: string): Array<[string, string]> {
  return tokens(hash)
    .filter((token) => token.startsWith(PREFIX))
    .map((token) => {
      const [key = "", ...value] = token.slice(PREFIX.length).split("=");
      return [key, decoded(value.join("="))];
    });
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
