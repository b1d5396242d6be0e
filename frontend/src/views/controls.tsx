/** Controls that several views share. */
import { type Signal, useSignal } from "@preact/signals";
import { formatStep } from "../format";

interface Option<T extends string> {
  readonly value: T;
  readonly label: string;
}

interface ChoiceProps<T extends string> {
  readonly name: string;
  readonly options: ReadonlyArray<Option<T>>;
  readonly chosen: Signal<T>;
  /** The pressed option, where it can differ from the chosen option. */
  readonly shown?: T;
}

/** A row of buttons that shows its options and the pressed option. */
export function Choice<T extends string>({ name, options, chosen, shown = chosen.value }: ChoiceProps<T>) {
  return (
    <fieldset class="choice" aria-label={name}>
      {options.map(({ value, label }) => (
        <button
          key={value}
          type="button"
          aria-pressed={value === shown}
          onClick={() => {
            chosen.value = value;
          }}
        >
          {label}
        </button>
      ))}
    </fieldset>
  );
}

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
