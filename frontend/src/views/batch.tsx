import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { pythonString } from "../format";

/** The call that loads the batch of a bad step. The page never reads the file itself. */
export function Batch({ path }: { readonly path: string }) {
  const code = useRef<HTMLElement>(null);
  const label = useSignal("Copy");
  const copy = async (): Promise<void> => {
    if (code.current === null) return;
    label.value = (await copyText(code.current)) ? "Copied" : "Selected: copy it with the keyboard";
  };
  return (
    <span class="batch">
      <code ref={code} class="batch-code" dir="ltr" data-testid="batch">
        tb_nanwatch.load_batch({pythonString(path)})
      </code>
      <button type="button" aria-live="polite" onClick={() => void copy()}>
        {label.value}
      </button>
    </span>
  );
}

/**
 * Select an element's text and copy it. Return whether that worked; if not, the user can still copy the selection.
 *
 * On a page without HTTPS, browsers refuse `navigator.clipboard`.
 */
async function copyText(element: HTMLElement): Promise<boolean> {
  getSelection()?.selectAllChildren(element);
  try {
    await navigator.clipboard.writeText(element.textContent ?? "");
    return true;
  } catch {
    return document.execCommand("copy");
  }
}
