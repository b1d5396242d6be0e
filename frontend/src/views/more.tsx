interface ShowMoreProps {
  readonly label: string;
  readonly onShow: () => void;
}

/** The button below the beginning of a long list. */
export function ShowMore({ label, onShow }: ShowMoreProps) {
  return (
    <button type="button" class="more" onClick={onShow}>
      {label}
    </button>
  );
}
