import { describe, expect, it } from "vitest";
import {
  excerpt,
  folded,
  isAllFinite,
  operandType,
  placeOf,
  sourceFunction,
  sourcePlace,
  zerosText,
} from "../src/chain";
import type { Source } from "../src/protocol.gen";
import { LINK, OPERAND, SOURCE } from "./examples";

describe("placeOf", () => {
  it("names the operation's type, and its own name if that differs", () => {
    expect(placeOf(LINK)).toEqual({ label: "", name: "Square", detail: "train_step/Square" });
    expect(placeOf({ ...LINK, op: { type: "Square", name: "Square" } }).detail).toBe("");
  });

  it("names the argument or the variable if no operation produced the value", () => {
    expect(placeOf({ ...LINK, op: null, phase: "input", tensor: "x" })).toMatchObject({
      label: "Argument",
      name: "x",
    });
    expect(placeOf({ ...LINK, op: null, phase: "weights", variable: "l1/V" })).toMatchObject({
      label: "Variable",
      name: "l1/V",
    });
  });

  it("does not invent an unknown name", () => {
    expect(placeOf({ ...LINK, op: null, phase: "input" })).toEqual({
      label: "Not known",
      name: "",
      detail: "",
    });
    expect(placeOf({ ...LINK, op: null, phase: "state" }).label).toBe("Not known");
  });

  it("names a captured tensor or a constant if no argument held the value", () => {
    const entry = { way: "captured", shape: [2], elements: [[1]] } as const;
    const link = { ...LINK, op: null, phase: "input", tensor: "mean", entry } as const;
    expect(placeOf(link)).toMatchObject({ label: "Captured tensor", name: "mean" });
    expect(placeOf({ ...link, entry: { ...entry, way: "constant" }, tensor: null })).toMatchObject({
      label: "Constant",
      name: "",
    });
  });
});

describe("folded", () => {
  const upTo = (length: number) => Array.from({ length }, (_, index) => index);

  it("shows a chain in full unless it can hide at least two hops", () => {
    expect(folded(upTo(8))).toEqual({ head: upTo(8), hidden: [], tail: [] });
    expect(folded([])).toEqual({ head: [], hidden: [], tail: [] });
  });

  it("shows the first and the last hops of a long chain, and loses no hop", () => {
    expect(folded(upTo(9))).toEqual({ head: [0, 1, 2, 3, 4], hidden: [5, 6], tail: [7, 8] });
  });
});

describe("excerpt", () => {
  it("numbers the lines, marks the source line, and removes the shared indent", () => {
    expect(excerpt(SOURCE)).toEqual([
      { number: 40, text: "with tf.GradientTape() as tape:", isMarked: false },
      { number: 41, text: "    loss = tf.square(error)", isMarked: true },
      { number: 42, text: "", isMarked: false },
      { number: 43, text: "return loss", isMarked: false },
    ]);
  });

  const texts = (source: Partial<Source>) =>
    excerpt({ ...SOURCE, before: [], after: [], ...source }).map(({ text }) => text);

  it("takes the indent from the line above, or without such a line from the line below", () => {
    expect(texts({ text: "b = a", before: ["    a = 1"], after: ["c = b"] })).toEqual([
      "    a = 1",
      "    b = a",
      "c = b",
    ]);
    expect(texts({ text: "a = 1", after: ["  b = a", "c"] })).toEqual(["  a = 1", "  b = a", "c"]);
  });

  it("indents a line that opens a block one level less than the block", () => {
    expect(texts({ text: "if a:", before: ["            x"], after: ["        y", "z"] })).toEqual([
      "            x",
      "    if a:",
      "        y",
      "z",
    ]);
  });

  it("indents the only line of a block one level more than the line that opens it", () => {
    expect(texts({ text: "y = x", before: ["def f(x):"] })).toEqual(["def f(x):", "    y = x"]);
  });

  it("escapes invisible characters, expands tabs, and cuts a very long line", () => {
    const [above, marked] = texts({ text: `a = "\u202e"${"#".repeat(9000)}`, before: ["\tif x:", "y"] });
    expect(above).toBe("    if x:");
    expect(marked).toBe("y");
    const [only = ""] = texts({ text: `a = "\u202e\u0007"${"#".repeat(9000)}` });
    expect(only.startsWith('a = "\\u{202e}\\u{7}"###')).toBe(true);
    expect(only.length).toBe(300);
  });

  it("shows a line even for a source without text", () => {
    expect(texts({ text: "" })).toEqual([""]);
  });
});

describe("sourcePlace", () => {
  it("shows file and line, and only the end of a long path", () => {
    expect(sourcePlace(SOURCE)).toBe("critic.py:41");
    const place = sourcePlace({ ...SOURCE, file: `/${"deep/".repeat(2000)}critic.py` });
    expect(place.length).toBe(63);
    expect(place).toMatch(/^…[^…]*deep\/critic\.py:41$/);
  });

  it("names no function for a line at the top level of a script", () => {
    expect(sourceFunction(SOURCE)).toBe("train_step");
    expect(sourceFunction({ ...SOURCE, function: "<module>" })).toBe("");
  });
});

describe("operands", () => {
  it("have dtype and shape, or the word scalar", () => {
    expect(operandType(OPERAND)).toBe("float32 [64, 1]");
    expect(operandType({ ...OPERAND, shape: [] })).toBe("float32 scalar");
    expect(operandType({ ...OPERAND, shape: Array(500).fill(1) }).length).toBe(48);
  });

  it("say if all elements are 0", () => {
    expect(zerosText({ ...OPERAND, zeros: 63 })).toBe("63");
    expect(zerosText({ ...OPERAND, zeros: 64 })).toBe("all 64");
    const counts = { ...OPERAND.counts, size: 1 };
    expect(zerosText({ ...OPERAND, counts, zeros: 1 })).toBe("1");
  });

  it("are finite if no element is NaN or Inf", () => {
    expect(isAllFinite(OPERAND.counts)).toBe(true);
    for (const kind of ["nan", "pos_inf", "neg_inf"])
      expect(isAllFinite({ ...OPERAND.counts, [kind]: 1 })).toBe(false);
  });
});
