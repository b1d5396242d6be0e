import { useSignal } from "@preact/signals";
import { formatStep } from "../format";

interface ShowMoreProps {
  readonly label: string;
  readonly onShow: () => void;
}

/** A button that shows the hidden part of a list. */
export function ShowMore({ label, onShow }: ShowMoreProps) {
  return (
    <button type="button" class="more" onClick={onShow}>
      {label}
    </button>
  );
}

/** Return the beginning of a long list, and the button that shows all of it: `null` once all is shown. */
export function useBeginning<T>(entries: ReadonlyArray<T>, length: number, noun = "") {
  const isWhole = useSignal(false);
  if (isWhole.value || entries.length <= length) return { shown: entries, showAll: null };
  const label = `Show all ${formatStep(entries.length)}${noun === "" ? "" : ` ${noun}`}`;
  const show = (): void => {
    isWhole.value = true;
  };
  return { shown: entries.slice(0, length), showAll: <ShowMore label={label} onShow={show} /> };
}
