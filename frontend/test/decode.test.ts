import { describe, expect, it } from "vitest";
import { decodeAlert, decodeHeatmap, decodeSeries, decodeVerdicts } from "../src/decode";
import { HEATMAP, NONFINITE, SERIES } from "./examples";

/** What an answer is once it has been through JSON. */
function sent(answer: unknown): unknown {
  return JSON.parse(JSON.stringify(answer));
}

describe("decodeVerdicts", () => {
  it("gives back what the plugin sent", () => {
    const verdicts = { runs: [NONFINITE], schema: 1 };
    expect(decodeVerdicts(sent(verdicts))).toEqual(verdicts);
  });

  it("passes over a field that a newer plugin has added", () => {
    expect(decodeVerdicts({ runs: [], schema: 1, weather: "fair" })).toEqual({ runs: [], schema: 1 });
  });

  it("says where an answer is not what it should be, and what is there", () => {
    const wrong = { runs: [NONFINITE, { ...NONFINITE, steps_seen: "412" }], schema: 1 };
    expect(() => decodeVerdicts(sent(wrong))).toThrow(
      "The plugin's answer must hold a number at verdicts.runs[1].steps_seen; it holds a value of type string.",
    );
  });

  it("refuses a status that it could not show", () => {
    const wrong = { runs: [{ ...NONFINITE, status: "exploded" }], schema: 1 };
    expect(() => decodeVerdicts(sent(wrong))).toThrow(
      "must hold one of finite, nonfinite, warning, empty at verdicts.runs[0].status",
    );
  });

  it.each([[null], ["no"], [[]], [7]])("refuses %j in place of a record", (answer) => {
    expect(() => decodeVerdicts(answer)).toThrow(/must hold a (record|list) at verdicts/);
  });
});

describe("decodeSeries", () => {
  it("gives back what the plugin sent, with its gaps", () => {
    const gaps = { ...SERIES, curves: [{ name: "loss", min: [null, 1], max: [], mean: [], kinds: [1, 0] }] };
    expect(decodeSeries(sent(gaps))).toEqual(gaps);
  });

  it("refuses a missing list", () => {
    expect(() => decodeSeries({ ...SERIES, last_step: undefined })).toThrow(
      "must hold a list at series.last_step; it holds nothing",
    );
  });
});

describe("decodeHeatmap", () => {
  it("gives back what the plugin sent", () => {
    expect(decodeHeatmap(sent(HEATMAP))).toEqual(HEATMAP);
  });

  it("refuses a text among the numbers", () => {
    const wrong = { ...HEATMAP, values: [[1, 2, "NaN"], []] };
    expect(() => decodeHeatmap(wrong)).toThrow("must hold a number at heatmap.values[0][2]");
  });
});

describe("decodeAlert", () => {
  it("gives back what the plugin sent", () => {
    const alert = {
      run: "relu",
      step: 411,
      action: "raised",
      findings: [
        { role: "gradient", name: "l3_1/V", layer: "l3_1", counts: NONFINITE.first?.counts, samples: [] },
      ],
      steps: [410, 411],
      loss: [0.5, null],
      variables: [
        {
          name: "l3_1/V",
          layer: "l3_1",
          grad_norm: [1, null],
          clipped_norm: [1, null],
          weight_norm: [3, 3],
          kinds: [0, 2],
        },
      ],
    };
    expect(decodeAlert(sent(alert))).toEqual(alert);
  });
});
