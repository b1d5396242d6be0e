import { describe, expect, it } from "vitest";
// What the plugin answers on a small logdir; pytest checks that it still does.
import alert from "../../tests/golden/alert.json";
import heatmap from "../../tests/golden/heatmap.json";
import series from "../../tests/golden/series.json";
import verdicts from "../../tests/golden/verdicts.json";
import { decodeAlert, decodeHeatmap, decodeSeries, decodeVerdicts } from "../src/decode";

describe("the answers of the plugin's own routes", () => {
  it.each([
    ["verdicts", verdicts, decodeVerdicts],
    ["series", series, decodeSeries],
    ["heatmap", heatmap, decodeHeatmap],
    ["alert", alert, decodeAlert],
  ] as const)("%s is understood whole", (_name, answer: unknown, decode) => {
    expect(decode(answer)).toEqual(answer);
  });

  it("names the first bad step", () => {
    const run = decodeVerdicts(verdicts).runs.find((verdict) => verdict.run === "relu");
    expect(run?.first?.step).toBe(29);
    expect(run?.first?.phase).toBe("loss");
  });
});
