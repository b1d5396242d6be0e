import type { Signal } from "@preact/signals";

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
