import { describe, expect, it } from "vitest";
import { filterRuns, mostUrgent, shortStatus, sortRuns, summarizeRuns } from "../src/runs";
import { FINITE, NONFINITE, ORIGIN } from "./examples";

const RUNS = [
  { ...FINITE, run: "run 10", steps_seen: 5 },
  { ...FINITE, run: "run 9", steps_seen: 7 },
  { ...FINITE, run: "empty", status: "empty" as const, steps_seen: 0 },
  { ...NONFINITE, run: "zz" },
  { ...FINITE, run: "odd", status: "warning" as const },
];

describe("sortRuns", () => {
  it("puts incomplete runs before warnings and finite runs, and counts them", () => {
    const torn = { ...FINITE, run: "torn", status: "incomplete" as const };
    expect(
      sortRuns([...RUNS, torn], "status")
        .map(({ run }) => run)
        .slice(0, 3),
    ).toEqual(["zz", "torn", "odd"]);
    expect(shortStatus(torn)).toBe("Incomplete");
    expect(summarizeRuns([...RUNS, torn])).toBe("1 of 6 non-finite, 1 incomplete");
    expect(summarizeRuns([FINITE, torn])).toBe("2 runs, 1 incomplete");
    expect(summarizeRuns([FINITE])).toBe("1 run");
  });

  it("puts non-finite runs first and empty runs last, and counts numbers in names as numbers", () => {
    expect(sortRuns(RUNS, "status").map(({ run }) => run)).toEqual(["zz", "odd", "run 9", "run 10", "empty"]);
  });

  it("sorts by name and by steps, and does not change the list itself", () => {
    expect(sortRuns(RUNS, "run").map(({ run }) => run)).toEqual(["empty", "odd", "run 9", "run 10", "zz"]);
    expect(sortRuns(RUNS, "steps").map(({ run }) => run)).toEqual(["odd", "zz", "run 9", "run 10", "empty"]);
    expect(RUNS.map(({ run }) => run)).toEqual(["run 10", "run 9", "empty", "zz", "odd"]);
  });
});

describe("filterRuns", () => {
  it("requires every word, in the name or the status, in any letter case", () => {
    expect(filterRuns(RUNS, "RUN 1").map(({ run }) => run)).toEqual(["run 10"]);
    expect(filterRuns(RUNS, "finite zz").map(({ run }) => run)).toEqual(["zz"]);
    expect(filterRuns(RUNS, " ")).toHaveLength(5);
  });
});

describe("mostUrgent", () => {
  it("returns the non-finite run, and null without runs", () => {
    expect(mostUrgent(RUNS, null)?.run).toBe("zz");
    expect(mostUrgent([], "zz")).toBeNull();
  });

  it("returns the shown run unless another run is more urgent", () => {
    const finite = RUNS.filter(({ status }) => status === "finite");
    expect(mostUrgent(finite, "run 10")?.run).toBe("run 10");
    expect(mostUrgent(RUNS, "run 10")?.run).toBe("zz");
  });
});

describe("shortStatus", () => {
  it("names the first non-finite value's kind and step", () => {
    expect(shortStatus(NONFINITE)).toBe("+Inf at 411");
    expect(shortStatus({ ...NONFINITE, first: { ...ORIGIN, kind: null } })).toBe("Non-finite at 411");
  });

  it("names the first step of a warning, else the status", () => {
    const warning = { kind: "exploding" as const, first_step: 2100, layer: null, text: "" };
    expect(shortStatus({ ...FINITE, status: "warning", warnings: [warning] })).toBe("From 2,100");
    expect(shortStatus(FINITE)).toBe("Finite");
  });
});
