import { placeOf, sourcePlace } from "../chain";
import { countsText, samplesText } from "../evidence";
import { formatStep, KIND_LABELS, PHASE_LABELS, shorten, visible } from "../format";
import type { Link } from "../protocol.gen";
import { Name } from "./name";
import { Operands } from "./operands";
import { Excerpt, Stack } from "./source";

interface HopProps {
  readonly link: Link;
  /** Counted from 1. */
  readonly number: number;
  readonly isOpen?: boolean;
}

/** A hop of a chain: a line, which opens to all that is known of the hop. */
export function Hop({ link, number, isOpen = false }: HopProps) {
  return (
    <li data-testid="hop">
      <details class="hop" open={isOpen}>
        <HopHead link={link} number={formatStep(number)} />
        <HopBody link={link} />
      </details>
    </li>
  );
}

interface HopHeadProps {
  readonly link: Link;
  readonly number?: string;
  /** The text beside the name; by default the operation's own name. */
  readonly note?: string;
}

/** A hop in one line, which opens the part below it. */
export function HopHead({ link, number = "", note }: HopHeadProps) {
  const { source } = link;
  const { label, name, detail } = placeOf(link);
  const beside = note ?? detail;
  return (
    <summary class="hop-head">
      <span class="hop-number number">{number}</span>
      <span class="hop-kind">{KIND_LABELS[link.kind]}</span>
      <span class="hop-name">
        {label !== "" && <span class="muted">{label}</span>}
        {name !== "" && <Name text={name} />}
        {beside !== "" && (
          <span class="hop-detail muted">
            <Name text={beside} />
          </span>
        )}
      </span>
      <span class="hop-where">
        {PHASE_LABELS[link.phase]}
        {link.layer !== null && <Name text={link.layer} />}
      </span>
      {source !== null && (
        <code class="hop-source" dir="ltr" title={shorten(`${visible(source.file)}:${source.line}`)}>
          {sourcePlace(source)}
        </code>
      )}
    </summary>
  );
}

function HopBody({ link }: { readonly link: Link }) {
  return (
    <div class="hop-body">
      {link.source !== null && <Excerpt source={link.source} />}
      <div class="hop-seen">
        <HopFacts link={link} />
        {link.inputs.length > 0 && <Operands operands={link.inputs} />}
      </div>
      {link.stack.length > 0 && <Stack stack={link.stack} />}
    </div>
  );
}

function HopFacts({ link }: { readonly link: Link }) {
  const { op, variable, tensor, counts, samples } = link;
  return (
    <dl class="hop-facts">
      <div>
        <dt>{op === null ? "Elements" : "Output"}</dt>
        <dd class={counts === null ? "muted" : "number bad"}>{countsText(counts)}</dd>
      </div>
      {samples.length > 0 && (
        <div>
          <dt>Samples of the batch</dt>
          <dd class="number">{samplesText(samples)}</dd>
        </div>
      )}
      {op !== null && variable !== null && <NamedFact label="Variable" name={variable} />}
      {op !== null && tensor !== null && <NamedFact label="Argument" name={tensor} />}
    </dl>
  );
}

function NamedFact({ label, name }: { readonly label: string; readonly name: string }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>
        <Name text={name} />
      </dd>
    </div>
  );
}
