import { describe, expect, it } from "vitest";
import { answer, boolean, record } from "../src/decoder";
import { decodeAlert, decodeHeatmap, decodeSeries, decodeVerdicts } from "../src/protocol.gen";
import { ALERT, HEATMAP, LINK, NONFINITE, OPERAND, SERIES, SOURCE } from "./examples";

/** Send an answer through JSON. */
function sent(answer: unknown): unknown {
  return JSON.parse(JSON.stringify(answer));
}

describe("decodeVerdicts", () => {
  it("returns the plugin's answer", () => {
    const verdicts = { runs: [NONFINITE], schema: 1 };
    expect(decodeVerdicts(sent(verdicts))).toEqual(verdicts);
  });

  it("returns a verdict that a replay found", () => {
    const replayed = { ...NONFINITE, chain: [LINK], other_chains: [[LINK, LINK]], notes: ["A note."] };
    const verdicts = { runs: [replayed], schema: 1 };
    expect(decodeVerdicts(sent(verdicts))).toEqual(verdicts);
  });

  it("refuses a verdict without its further chains", () => {
    const wrong = { runs: [{ ...NONFINITE, other_chains: undefined }], schema: 1 };
    expect(() => decodeVerdicts(sent(wrong))).toThrow(
      "must hold a list at verdicts.runs[0].other_chains; it holds nothing",
    );
  });

  it("drops a field that a newer plugin has added", () => {
    expect(decodeVerdicts({ runs: [], schema: 1, weather: "fair" })).toEqual({ runs: [], schema: 1 });
  });

  it("reports where an answer breaks the protocol, and what it holds there", () => {
    const wrong = { runs: [NONFINITE, { ...NONFINITE, steps_seen: "412" }], schema: 1 };
    expect(() => decodeVerdicts(sent(wrong))).toThrow(
      "The plugin's answer must hold a number at verdicts.runs[1].steps_seen; it holds a value of type string.",
    );
  });

  it("refuses an unknown status", () => {
    const wrong = { runs: [{ ...NONFINITE, status: "exploded" }], schema: 1 };
    expect(() => decodeVerdicts(sent(wrong))).toThrow(
      "must hold one of finite, nonfinite, warning, incomplete, empty at verdicts.runs[0].status",
    );
  });

  it.each([[null], ["no"], [[]], [7]])("refuses %j in place of a record", (answer) => {
    expect(() => decodeVerdicts(answer)).toThrow(/must hold a (record|list) at verdicts/);
  });
});

describe("decodeSeries", () => {
  it("returns the plugin's answer, with its gaps", () => {
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
  it("returns the plugin's answer", () => {
    expect(decodeHeatmap(sent(HEATMAP))).toEqual(HEATMAP);
  });

  it("refuses a text among the numbers", () => {
    const wrong = { ...HEATMAP, values: [[1, 2, "NaN"], []] };
    expect(() => decodeHeatmap(wrong)).toThrow("must hold a number at heatmap.values[0][2]");
  });
});

describe("decodeAlert", () => {
  const replay = {
    outcome: "found",
    notes: ["The step drew random numbers."],
    chains: [[LINK], [{ ...LINK, op: null, source: null, counts: null, tensor: "x" }]],
    seconds: 0.5,
    dump: null,
  };

  it("returns the plugin's answer about a step without a replay", () => {
    expect(decodeAlert(sent(ALERT))).toEqual(ALERT);
  });

  it("returns a replay, and the path of the batch", () => {
    const alert = { ...ALERT, replay, batch: "relu/nanwatch/batches/step-411.npz" };
    expect(decodeAlert(sent(alert))).toEqual(alert);
  });

  it("drops a field of a hop that a newer plugin has added", () => {
    const newer = { ...ALERT, replay: { ...replay, chains: [[{ ...LINK, device: "GPU:0" }]] } };
    expect(decodeAlert(sent(newer)).replay?.chains).toEqual([[LINK]]);
  });

  it.each<[unknown, string]>([
    [{ ...replay, outcome: "lost" }, "one of found, finite, failed at alert.replay.outcome"],
    [{ ...replay, chains: [LINK] }, "a list at alert.replay.chains[0]; it holds a value of type object"],
    [
      { ...replay, chains: [[{ ...LINK, inputs: [{ ...OPERAND, max: "NaN" }] }]] },
      "a number at alert.replay.chains[0][0].inputs[0].max",
    ],
    [
      { ...replay, chains: [[{ ...LINK, source: { ...SOURCE, before: null } }]] },
      "a list at alert.replay.chains[0][0].source.before; it holds null",
    ],
    [undefined, "a record at alert.replay; it holds nothing"],
  ])("refuses a replay that breaks the protocol (%#)", (wrong, sentence) => {
    expect(() => decodeAlert(sent({ ...ALERT, replay: wrong }))).toThrow(sentence);
  });
});

describe("boolean", () => {
  const decode = answer("batch", record<{ readonly saved: boolean }>({ saved: boolean }));

  it("accepts true and false alone", () => {
    expect([true, false].map((saved) => decode({ saved }).saved)).toEqual([true, false]);
    expect(() => decode({ saved: 1 })).toThrow("must hold true or false at batch.saved; it holds 1.");
  });
});
