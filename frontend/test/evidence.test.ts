import { describe, expect, it } from "vitest";
import {
  countedKinds,
  countsText,
  isClipped,
  nonfiniteText,
  samplesText,
  sortFindings,
  sortVariables,
} from "../src/evidence";
import type { AlertAnswer, FindingRow } from "../src/protocol.gen";
import { ALERT, ORIGIN } from "./examples";

function finding(role: FindingRow["role"], name: string): FindingRow {
  return { role, name, layer: null, counts: null, samples: [] };
}

describe("sortFindings", () => {
  it("follows the data flow through the step", () => {
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

  it("puts the finding that the verdict names first within its role, and keeps the order of the rest", () => {
    const found = ["l4/V", "l3/V", "l3_1/V"].map((name) => finding("gradient", name));
    expect(sortFindings(found, ORIGIN).map(({ name }) => name)).toEqual(["l3_1/V", "l4/V", "l3/V"]);
  });
});

describe("sortVariables", () => {
  it("puts the variables that were bad in the last step first", () => {
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
  it("shows the count of each kind and the size", () => {
    expect(countsText({ size: 4096, nan: 2438, pos_inf: 513, neg_inf: 591 })).toBe(
      "513 +Inf, 591 -Inf, 2,438 NaN of 4,096",
    );
  });

  it("does not invent counts that were not taken", () => {
    expect(countsText(null)).toBe("not counted");
    expect(countedKinds(null)).toBe("non-finite");
  });
});

describe("countedKinds", () => {
  it("names the kinds alone", () => {
    expect(countedKinds({ size: 1, nan: 0, pos_inf: 1, neg_inf: 0 })).toBe("+Inf");
  });
});

describe("nonfiniteText", () => {
  it("has a word for a finite tensor", () => {
    expect(nonfiniteText({ size: 64, nan: 0, pos_inf: 0, neg_inf: 0 })).toBe("none");
    expect(nonfiniteText({ size: 64, nan: 1, pos_inf: 0, neg_inf: 2 })).toBe("2 -Inf, 1 NaN");
  });
});

describe("samplesText", () => {
  const upTo = (length: number) => Array.from({ length }, (_, index) => index);

  it.each([
    [[7], "7"],
    [[7, 31, 50], "7, 31, 50"],
    [[3, 4], "3, 4"],
    [[0, 1, 2, 3, 9, 1200], "0–3, 9, 1,200"],
    [[1, 3, 5, 7, 9, 11, 13, 15], "1, 3, 5, 7, 9, 11, 13, 15"],
    [[1, 3, 5, 7, 9, 11, 13, 15, 17], "1, 3, 5, 7, 9, 11, 13, 15, … (9 in all)"],
  ])("lists %j as %s", (samples, text) => {
    expect(samplesText(samples)).toBe(text);
  });

  it("says that there may be more samples than recorded", () => {
    expect(samplesText(upTo(63))).toBe("0–62");
    expect(samplesText(upTo(64))).toBe("0–63 (64 or more)");
    expect(samplesText(upTo(64).map((index) => 2 * index))).toBe("0, 2, 4, 6, 8, 10, 12, 14, … (64 or more)");
  });
});

describe("isClipped", () => {
  const clippedTo = (clipped_norm: ReadonlyArray<number | null>): AlertAnswer => ({
    ...ALERT,
    variables: ALERT.variables.map((row) => ({ ...row, clipped_norm })),
  });

  it("is true if clipping changed a norm or made it non-finite", () => {
    expect(isClipped(clippedTo([0.5, null]))).toBe(true);
    expect(isClipped(clippedTo([null, null]))).toBe(true);
  });

  it("is false if the norms are equal, also where both are non-finite", () => {
    expect(isClipped(clippedTo([1, null]))).toBe(false);
  });
});
