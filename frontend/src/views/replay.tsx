import { useSignal } from "@preact/signals";
import { folded } from "../chain";
import { formatNumber, formatStep, plural, shorten, visible } from "../format";
import type { AlertAnswer, Link, Replay } from "../protocol.gen";
import { ShowMore, useBeginning } from "./controls";
import { Hop, HopHead } from "./hop";

type Links = ReadonlyArray<Link>;

/** The replay of the bad step: the origin, and the chain from there to the tensor that the watch found non-finite. */
export function ReplayView({ alert }: { readonly alert: AlertAnswer }) {
  const { replay } = alert;
  if (replay === null) return null;
  const [chain, ...others] = replay.chains;
  return (
    <section class="replay" aria-label="Replay of the bad step" data-testid="replay">
      <div class="bar">
        <h2>{chain === undefined ? "Replay" : chainTitle(chain)}</h2>
        <span class="muted">{outcomeText(replay, alert.step)}</span>
      </div>
      {chain !== undefined && <Chain links={chain} isOriginOpen={true} />}
      {others.length > 0 && <Others chains={others} />}
      {replay.dump !== null && (
        <p class="dump muted">
          The files of TensorFlow's debugger were kept, relative to the run's directory:{" "}
          <code dir="ltr">{shorten(visible(replay.dump))}</code>
        </p>
      )}
    </section>
  );
}

function chainTitle(links: Links): string {
  return links.length === 1 ? "The origin" : "From the origin to what went bad";
}

function outcomeText({ outcome, seconds }: Replay, step: number): string {
  const took = seconds > 0 ? ` (${formatNumber(seconds, 2)} s)` : "";
  const again = `step ${formatStep(step)}, run again with every operation looked at${took}`;
  if (outcome === "found") return again;
  if (outcome === "finite") return `${again}: this time everything in it was finite`;
  return `step ${formatStep(step)} could not be run again, or not to its end${took}`;
}

/** A chain, its origin first. The middle of a long chain is folded. */
function Chain({ links, isOriginOpen }: { readonly links: Links; readonly isOriginOpen: boolean }) {
  const isWhole = useSignal(false);
  const { head, hidden, tail } = folded(links);
  const hops = (part: Links, from: number) =>
    part.map((link, index) => (
      <Hop
        key={from + index}
        link={link}
        number={from + index + 1}
        isOpen={isOriginOpen && from + index === 0}
      />
    ));
  return (
    <ol class="chain" data-testid="chain">
      {hops(head, 0)}
      {hidden.length > 0 && !isWhole.value && (
        <li class="chain-fold">
          <ShowMore
            label={`${formatStep(hidden.length)} more`}
            onShow={() => {
              isWhole.value = true;
            }}
          />
        </li>
      )}
      {isWhole.value && hops(hidden, head.length)}
      {hops(tail, head.length + hidden.length)}
    </ol>
  );
}

const FIRST_OTHERS = 4;

/** Further origins in the same step, independent of the first. */
function Others({ chains }: { readonly chains: ReadonlyArray<Links> }) {
  const { shown, showAll } = useBeginning(chains, FIRST_OTHERS);
  return (
    <div class="others">
      <h3>{plural(chains.length, "further origin")} in the same step</h3>
      {shown.map((links, index) => (
        <Other key={index} links={links} />
      ))}
      {showAll}
    </div>
  );
}

function Other({ links }: { readonly links: Links }) {
  const origin = links[0];
  if (origin === undefined) return null;
  return (
    <details class="other" data-testid="other-chain">
      <HopHead link={origin} note={plural(links.length, "hop")} />
      <Chain links={links} isOriginOpen={true} />
    </details>
  );
}
