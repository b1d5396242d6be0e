import { excerpt, sourceFunction, sourcePlace } from "../chain";
import { formatStep, plural, shorten, visible } from "../format";
import type { Source } from "../protocol.gen";

/** The place of a source line: `critic.py:41 in train_step`. */
export function SourcePlace({ source }: { readonly source: Source }) {
  const inside = sourceFunction(source);
  const place = `${visible(source.file)}:${source.line}`;
  return (
    <bdi class="source-place" dir="ltr" title={shorten(place)}>
      <code>{sourcePlace(source)}</code>
      {inside !== "" && (
        <>
          {" in "}
          <code>{shorten(inside, 60)}</code>
        </>
      )}
    </bdi>
  );
}

/** A source line and the lines around it. */
export function Excerpt({ source }: { readonly source: Source }) {
  return (
    <figure class="excerpt">
      <figcaption>
        <SourcePlace source={source} />
      </figcaption>
      {source.text === "" ? (
        <p class="muted">The file could not be read when the step was run again.</p>
      ) : (
        <pre dir="ltr" data-testid="excerpt">
          {excerpt(source).map(({ number, text, isMarked }) => (
            <code key={number} class={isMarked ? "line line-marked" : "line"}>
              <span class="line-number">{number > 0 ? number : ""}</span>
              <span class="line-text">{text}</span>
              {isMarked ? <span class="unseen"> (this line)</span> : null}
            </code>
          ))}
        </pre>
      )}
    </figure>
  );
}

/** The call stack of an operation, in the order of a Python traceback. */
export function Stack({ stack }: { readonly stack: ReadonlyArray<Source> }) {
  return (
    <details class="stack">
      <summary>Stack of {plural(stack.length, "call")}, the most recent last</summary>
      <ol>
        {stack.map((frame, index) => (
          <li key={index} value={index + 1} aria-label={`Call ${formatStep(index + 1)}`}>
            <SourcePlace source={frame} />
            <code class="stack-text" dir="ltr">
              {shorten(visible(frame.text.trim()), 300)}
            </code>
          </li>
        ))}
      </ol>
    </details>
  );
}
