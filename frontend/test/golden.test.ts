import { describe, expect, it } from "vitest";
// The plugin's answers for a small logdir. pytest checks that the plugin still gives them.
import alert from "../../tests/golden/alert.json";
import heatmap from "../../tests/golden/heatmap.json";
import replay from "../../tests/golden/replay.json";
import series from "../../tests/golden/series.json";
import verdicts from "../../tests/golden/verdicts.json";
import { decodeAlert, decodeHeatmap, decodeSeries, decodeVerdicts } from "../src/protocol.gen";

describe("the answers of the plugin's own routes", () => {
  it.each([
    ["verdicts", verdicts, decodeVerdicts],
    ["series", series, decodeSeries],
    ["heatmap", heatmap, decodeHeatmap],
    ["alert", alert, decodeAlert],
    ["replay", replay, decodeAlert],
  ] as const)("%s is decoded in full", (_name, answer: unknown, decode) => {
    expect(decode(answer)).toEqual(answer);
  });

  it("name the first bad step", () => {
    const run = decodeVerdicts(verdicts).runs.find((verdict) => verdict.run === "relu");
    expect(run?.first?.step).toBe(29);
    expect(run?.first?.phase).toBe("loss");
  });

  it("hold the replay of a step, its origin first", () => {
    const [chain, ...others] = decodeAlert(replay).replay?.chains ?? [];
    expect(chain?.map(({ op }) => op?.type)).toEqual(["Square", "Mean", "MatMul"]);
    expect(chain?.[0]?.source?.line).toBe(41);
    expect(others.map(([origin]) => origin?.op?.type)).toEqual(["Log"]);
  });
});
