import { describe, expect, it } from "vitest";
import {
  formatKinds,
  formatNumber,
  formatStep,
  formatSteps,
  formatValue,
  plural,
  pythonString,
  shorten,
  visible,
} from "../src/format";

describe("formatNumber", () => {
  it.each([
    [0, "0"],
    [1, "1"],
    [-2.5, "-2.5"],
    [0.7654321, "0.7654"],
    [0.001, "0.001"],
    [99_994, "99990"],
    [99_999, "1e5"],
    [-0, "0"],
    [54321, "54320"],
    [0.00012345, "1.234e-4"],
    [3.1e38, "3.1e38"],
    [-1e-30, "-1e-30"],
  ])("formats %d as %s", (value, text) => {
    expect(formatNumber(value)).toBe(text);
  });

  it("keeps the given number of digits", () => {
    expect(formatNumber(1234.5678, 2)).toBe("1200");
    expect(formatNumber(0.7654321, 2)).toBe("0.77");
  });
});

describe("formatValue", () => {
  it("prefers the recorded kinds to the number", () => {
    expect(formatValue(7, 2)).toBe("+Inf");
  });

  it("distinguishes an absent value from zero", () => {
    expect(formatValue(null)).toBe("–");
    expect(formatValue(0)).toBe("0");
  });
});

describe("steps", () => {
  it.each([
    [0, "0"],
    [999, "999"],
    [1000, "1,000"],
    [12345678, "12,345,678"],
  ])("formats %d as %s", (step, text) => {
    expect(formatStep(step)).toBe(text);
  });

  it("formats a span by its ends, and a single step once", () => {
    expect(formatSteps(1000, 1999)).toBe("1,000–1,999");
    expect(formatSteps(5, 5)).toBe("5");
  });

  it("has the plural for all counts but 1", () => {
    expect([0, 1, 2].map((count) => plural(count, "step"))).toEqual(["0 steps", "1 step", "2 steps"]);
  });
});

describe("formatKinds", () => {
  it.each([
    [0, ""],
    [1, "NaN"],
    [2, "+Inf"],
    [4, "-Inf"],
    [8, "Inf"],
    [7, "+Inf, -Inf, NaN"],
  ])("names the bits %d as %j", (bits, text) => {
    expect(formatKinds(bits)).toBe(text);
  });
});

describe("visible", () => {
  it("leaves letters of any script and markup as they are", () => {
    expect(visible("<script>Schicht_ä/層</script>")).toBe("<script>Schicht_ä/層</script>");
  });

  it.each([
    ["a\nb\tc\r", "a\\nb\\tc\\r"],
    ["\u0000\u001b[31m", "\\u{0}\\u{1b}[31m"],
    ["x\u202efdp.exe", "x\\u{202e}fdp.exe"],
    ["zero\u200bwidth", "zero\\u{200b}width"],
    ["\ud800", "\\u{d800}"],
  ])("escapes the characters that break, hide or reorder %j", (name, text) => {
    expect(visible(name)).toBe(text);
  });
});

describe("shorten", () => {
  it("cuts only what is longer than the limit", () => {
    expect(shorten("abcd", 4)).toBe("abcd");
    expect(shorten("abcde", 4)).toBe("abc…");
  });
});

describe("pythonString", () => {
  it.each([
    ["runs/a b.npz", '"runs/a b.npz"'],
    ['say "x"\\', '"say \\"x\\"\\\\"'],
    ["line\nbreak\t", '"line\\nbreak\\t"'],
    ["\u202efdp\u0085\u007f", '"\\u202efdp\\u0085\\u007f"'],
    ["\u{e0001}ä層", '"\\U000e0001ä層"'],
    ["\ud800", '"\\ud800"'],
  ])("formats %j as a Python literal", (text, literal) => {
    expect(pythonString(text)).toBe(literal);
  });
});
