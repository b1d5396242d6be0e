/** Links to a verdict: the page's part of TensorBoard's address. Pure. */

export interface DeepLink {
  readonly run: string | null;
  readonly step: number | null;
  readonly layer: string | null;
}

const PREFIX = "p.nanwatch.";

/** Read the page's keys from a fragment such as `#nanwatch&p.nanwatch.run=relu&p.nanwatch.step=411`. */
export function readLink(hash: string): DeepLink {
  const found = new Map(ownPairs(hash));
  const step = Number(found.get("step") ?? Number.NaN);
  return {
    run: found.get("run") ?? null,
    step: Number.isInteger(step) ? step : null,
    layer: found.get("layer") ?? null,
  };
}

/** Write the page's keys into a fragment. The tab's name and foreign keys stay unchanged. */
export function writeLink(hash: string, link: DeepLink): string {
  const foreign = tokens(hash).filter((token) => !token.startsWith(PREFIX));
  const own = Object.entries(link)
    .filter(([, value]) => value !== null)
    .map(([key, value]) => `${PREFIX}${key}=${encodeURIComponent(String(value))}`);
  return `#${[...foreign, ...own].join("&")}`;
}

/** Return whether a fragment shows this plugin's tab. The page must not change the address of another tab. */
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
