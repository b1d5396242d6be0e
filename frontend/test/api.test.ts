import { afterEach, describe, expect, it, vi } from "vitest";
import { readText, seriesUrl } from "../src/api";

function answerWith(body: string, status: number, type: string): void {
  vi.stubGlobal("fetch", async () => new Response(body, { status, headers: { "Content-Type": type } }));
}

function read(signal = new AbortController().signal): Promise<string> {
  return readText("./verdicts", signal);
}

afterEach(() => vi.unstubAllGlobals());

describe("seriesUrl", () => {
  it("escapes the special characters of a run's name", () => {
    expect(seriesUrl({ run: "lr=0.1&x/#?", session: 2 }, { first: 0, last: 9 })).toBe(
      "./series?run=lr%3D0.1%26x%2F%23%3F&session=2&first=0&last=9&points=600",
    );
  });
});

describe("readText", () => {
  it("returns the text of an answer", async () => {
    answerWith("{}", 200, "application/json");
    await expect(read()).resolves.toBe("{}");
  });

  it("throws the plugin's own sentence", async () => {
    answerWith("Not found: the run must be one that `verdicts` lists.", 404, "text/plain; charset=utf-8");
    await expect(read()).rejects.toThrow("Not found: the run must be one that `verdicts` lists.");
  });

  it("does not throw a page of markup as a sentence", async () => {
    answerWith("<html>Bad gateway</html>", 502, "text/html");
    await expect(read()).rejects.toThrow("TensorBoard answered 502 to ./verdicts.");
  });

  it("reports that TensorBoard does not answer", async () => {
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
    await expect(read()).rejects.toThrow("TensorBoard does not answer.");
  });

  it("rethrows the error of an aborted request unchanged", async () => {
    const aborted = new DOMException("aborted", "AbortError");
    vi.stubGlobal("fetch", () => Promise.reject(aborted));
    await expect(read(AbortSignal.abort())).rejects.toBe(aborted);
  });
});
