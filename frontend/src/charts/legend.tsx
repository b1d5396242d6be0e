import { type ColourDomain, colourPosition, colourTicks } from "../colour";
import { formatNumber } from "../format";
import { viridisGradient } from "../palette";

const GRADIENT = viridisGradient();

/** The meaning of the heatmap's colours. */
export function Legend({ domain, title }: { readonly domain: ColourDomain; readonly title: string }) {
  return (
    <div class="legend">
      <span>{title}</span>
      <div class="legend-scale">
        <div class="legend-bar" style={{ background: GRADIENT }} />
        {colourTicks(domain).map((tick) => (
          <span class="tick" key={tick} style={{ left: `${100 * colourPosition(tick, domain)}%` }}>
            {formatNumber(tick, 2)}
          </span>
        ))}
      </div>
      <Key sample="key-nonfinite">NaN or Inf</Key>
      <Key sample="key-zero">zero</Key>
      <Key sample="key-absent">no value</Key>
    </div>
  );
}

function Key({ sample, children }: { readonly sample: string; readonly children: string }) {
  return (
    <span class="legend-key">
      <span class={`key ${sample}`} aria-hidden="true" />
      {children}
    </span>
  );
}
