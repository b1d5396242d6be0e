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
  it("is the operation's type, and its own name where that says more", () => {
    expect(placeOf(LINK)).toEqual({ label: "", name: "Square", detail: "train_step/Square" });
    expect(placeOf({ ...LINK, op: { type: "Square", name: "Square" } }).detail).toBe("");
  });

  it("is the argument or the variable that brought the value, where no operation did", () => {
    expect(placeOf({ ...LINK, op: null, phase: "input", tensor: "x" })).toMatchObject({
      label: "Argument",
      name: "x",
    });
    expect(placeOf({ ...LINK, op: null, phase: "weights", variable: "l1/V" })).toMatchObject({
      label: "Variable",
      name: "l1/V",
    });
  });

  it("makes up no name that is not known", () => {
    expect(placeOf({ ...LINK, op: null, phase: "input" })).toEqual({
      label: "Not known",
      name: "",
      detail: "",
    });
    expect(placeOf({ ...LINK, op: null, phase: "state" }).label).toBe("Not known");
  });

  it("is a captured tensor or a constant where no argument brought the value", () => {
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

  it("shows a chain whole unless at least two hops could be hidden", () => {
    expect(folded(upTo(8))).toEqual({ head: upTo(8), hidden: [], tail: [] });
    expect(folded([])).toEqual({ head: [], hidden: [], tail: [] });
  });

  it("shows the first and the last hops of a long one, and loses none", () => {
    expect(folded(upTo(9))).toEqual({ head: [0, 1, 2, 3, 4], hidden: [5, 6], tail: [7, 8] });
  });
});

describe("excerpt", () => {
  it("numbers the lines, marks the one that is meant, and takes off the indent that they share", () => {
    expect(excerpt(SOURCE)).toEqual([
      { number: 40, text: "with tf.GradientTape() as tape:", isMeant: false },
      { number: 41, text: "    loss = tf.square(error)", isMeant: true },
      { number: 42, text: "", isMeant: false },
      { number: 43, text: "return loss", isMeant: false },
    ]);
  });

  const texts = (source: Partial<Source>) =>
    excerpt({ ...SOURCE, before: [], after: [], ...source }).map(({ text }) => text);

  it("takes the indent from the line above, and from the line below where there is none above", () => {
    expect(texts({ text: "b = a", before: ["    a = 1"], after: ["c = b"] })).toEqual([
      "    a = 1",
      "    b = a",
      "c = b",
    ]);
    expect(texts({ text: "a = 1", after: ["  b = a", "c"] })).toEqual(["  a = 1", "  b = a", "c"]);
  });

  it("sets a line that opens a block before the block", () => {
    expect(texts({ text: "if a:", before: ["            x"], after: ["        y", "z"] })).toEqual([
      "            x",
      "    if a:",
      "        y",
      "z",
    ]);
  });

  it("sets a block's only line into it", () => {
    expect(texts({ text: "y = x", before: ["def f(x):"] })).toEqual(["def f(x):", "    y = x"]);
  });

  it("spells out what hides in a line, expands tabs, and cuts what no screen holds", () => {
    const [above, meant] = texts({ text: `a = "\u202e"${"#".repeat(9000)}`, before: ["\tif x:", "y"] });
    expect(above).toBe("    if x:");
    expect(meant).toBe("y");
    const [only = ""] = texts({ text: `a = "\u202e\u0007"${"#".repeat(9000)}` });
    expect(only.startsWith('a = "\\u{202e}\\u{7}"###')).toBe(true);
    expect(only.length).toBe(300);
  });

  it("has a line to show even of a source without any text", () => {
    expect(texts({ text: "" })).toEqual([""]);
  });
});

describe("sourcePlace", () => {
  it("is file and line, and of a long path the end", () => {
    expect(sourcePlace(SOURCE)).toBe("critic.py:41");
    const place = sourcePlace({ ...SOURCE, file: `/${"deep/".repeat(2000)}critic.py` });
    expect(place.length).toBe(63);
    expect(place).toMatch(/^…[^…]*deep\/critic\.py:41$/);
  });

  it("names no function of a script's own lines", () => {
    expect(sourceFunction(SOURCE)).toBe("train_step");
    expect(sourceFunction({ ...SOURCE, function: "<module>" })).toBe("");
  });
});

describe("operands", () => {
  it("have dtype and shape, a scalar a word for it", () => {
    expect(operandType(OPERAND)).toBe("float32 [64, 1]");
    expect(operandType({ ...OPERAND, shape: [] })).toBe("float32 scalar");
    expect(operandType({ ...OPERAND, shape: Array(500).fill(1) }).length).toBe(48);
  });

  it("say where all of them are 0", () => {
    expect(zerosText({ ...OPERAND, zeros: 63 })).toBe("63");
    expect(zerosText({ ...OPERAND, zeros: 64 })).toBe("all 64");
    const one = { ...OPERAND.counts, size: 1 };
    expect(zerosText({ ...OPERAND, counts: one, zeros: 1 })).toBe("1");
  });

  it("are finite if no element is anything else", () => {
    expect(isAllFinite(OPERAND.counts)).toBe(true);
    for (const kind of ["nan", "pos_inf", "neg_inf"])
      expect(isAllFinite({ ...OPERAND.counts, [kind]: 1 })).toBe(false);
  });
});
