import { shorten, visible } from "../format";

interface NameProps {
  readonly text: string;
  readonly testid?: string;
}

/** A name out of the user's program: data, of any length and any characters. It is cut to fit, and whole in the tooltip. */
export function Name({ text, testid }: NameProps) {
  const shown = visible(text);
  return (
    <bdi class="name" title={shorten(shown)} data-testid={testid}>
      {shown}
    </bdi>
  );
}
