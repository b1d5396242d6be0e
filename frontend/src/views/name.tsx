import { shorten, visible } from "../format";

interface NameProps {
  readonly text: string;
  readonly testid?: string;
}

/** A name from the user's program, of any length and any characters. It is cut to fit; the tooltip shows more of it. */
export function Name({ text, testid }: NameProps) {
  const shown = visible(text);
  return (
    <bdi class="name" title={shorten(shown)} data-testid={testid}>
      {shown}
    </bdi>
  );
}
