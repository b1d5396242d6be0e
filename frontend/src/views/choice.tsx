interface Option<T extends string> {
  readonly value: T;
  readonly label: string;
}

interface ChoiceProps<T extends string> {
  readonly name: string;
  readonly options: ReadonlyArray<Option<T>>;
  readonly value: T;
  readonly onChoose: (value: T) => void;
}

/** A row of buttons of which one is pressed. */
export function Choice<T extends string>({ name, options, value, onChoose }: ChoiceProps<T>) {
  return (
    <fieldset class="choice" aria-label={name}>
      {options.map((option) => (
        <button
          key={option.value}
          type="button"
          aria-pressed={option.value === value}
          onClick={() => onChoose(option.value)}
        >
          {option.label}
        </button>
      ))}
    </fieldset>
  );
}
