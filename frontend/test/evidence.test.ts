import { describe, expect, it } from "vitest";
import { countedKinds, countsText, sortFindings, sortVariables } from "../src/evidence";
import type { FindingRow } from "../src/protocol.gen";
import { ORIGIN } from "./examples";

function finding(role: FindingRow["role"], name: string): FindingRow {
  return { role, name, layer: null, counts: null, samples: [] };
}

describe("sortFindings", () => {
  it("follows the data through the step", () => {
    const found = [
      finding("clipped", "a"),
      finding("gradient", "a"),
      finding("loss", "loss"),
      finding("input", "x"),
    ];
    expect(sortFindings(found, null).map(({ role }) => role)).toEqual([
      "input",
      "loss",
      "gradient",
      "clipped",
    ]);
  });

  it("puts what the verdict names first among its equals, and keeps the order of the rest", () => {
    const found = ["l4/V", "l3/V", "l3_1/V"].map((name) => finding("gradient", name));
    expect(sortFindings(found, ORIGIN).map(({ name }) => name)).toEqual(["l3_1/V", "l4/V", "l3/V"]);
  });
});

describe("sortVariables", () => {
  it("puts those that were bad in the last step first", () => {
    const row = (name: string, kinds: number[]) => ({
      name,
      layer: null,
      grad_norm: [],
      clipped_norm: [],
      weight_norm: [],
      kinds,
    });
    const rows = [row("a", [0, 0]), row("b", [0, 2]), row("c", [1, 0]), row("d", [0, 1])];
    expect(sortVariables(rows).map(({ name }) => name)).toEqual(["b", "d", "a", "c"]);
  });
});

describe("countsText", () => {
  it("says how many elements were what, of how many", () => {
    expect(countsText({ size: 4096, nan: 2438, pos_inf: 513, neg_inf: 591 })).toBe(
      "513 +Inf, 591 -Inf, 2,438 NaN of 4,096",
    );
  });

  it("does not make up what was not counted", () => {
    expect(countsText(null)).toBe("not counted");
    expect(countedKinds(null)).toBe("non-finite");
  });
});

describe("countedKinds", () => {
  it("names the kinds alone", () => {
    expect(countedKinds({ size: 1, nan: 0, pos_inf: 1, neg_inf: 0 })).toBe("+Inf");
  });
});
