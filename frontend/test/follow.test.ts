import { signal } from "@preact/signals";
import { describe, expect, it } from "vitest";
import { follow, resource } from "../src/follow";

interface Question {
  readonly url: string;
  readonly signal: AbortSignal;
  readonly answer: (text: string) => void;
  readonly fail: (message: string) => void;
}

/** A plugin whose answers come when the test says so. */
function startFollowing(settleMs = 0) {
  const asked: Question[] = [];
  const read = (url: string, abort: AbortSignal): Promise<string> =>
    new Promise((resolve, reject) => {
      asked.push({ url, signal: abort, answer: resolve, fail: (message) => reject(new Error(message)) });
    });
  const [request, target] = [signal("./a"), resource<unknown[]>()];
  const follower = follow({ request, target, decode: (all) => [...all], read, settleMs });
  const question = (index: number): Question => {
    const found = asked[index];
    if (found === undefined) throw new Error(`question ${index} was not asked`);
    return found;
  };
  return { asked, question, request, target, follower };
}

/** Lets what is waiting run. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

describe("follow", () => {
  it("asks at once, and shows what comes", async () => {
    const { question, target } = startFollowing();
    expect(target.pending.value).toBe(true);
    question(0).answer("1");
    await turn();
    expect(target.answer.value).toEqual([1]);
    expect(target.pending.value).toBe(false);
  });

  it("never lets an older answer replace a newer one", async () => {
    const { question, request, target } = startFollowing();
    request.value = "./b";
    question(1).answer("2");
    await turn();
    question(0).answer("1");
    await turn();
    expect(target.answer.value).toEqual([2]);
    expect(question(0).signal.aborted).toBe(true);
  });

  it("keeps the last good answer beside a failure, and drops the failure with the next answer", async () => {
    const { question, target, follower } = startFollowing();
    question(0).answer("1");
    await turn();
    follower.refresh();
    question(1).fail("TensorBoard does not answer.");
    await turn();
    expect(target.answer.value).toEqual([1]);
    expect(target.failure.value).toBe("TensorBoard does not answer.");
    follower.refresh();
    question(2).answer("2");
    await turn();
    expect(target.answer.value).toEqual([2]);
    expect(target.failure.value).toBeNull();
  });

  it("says so where an answer is no JSON", async () => {
    const { question, target } = startFollowing();
    question(0).answer("<html>");
    await turn();
    expect(target.answer.value).toBeNull();
    expect(target.failure.value).toContain("JSON");
  });

  it("does not draw an unchanged answer again", async () => {
    const { question, target, follower } = startFollowing();
    question(0).answer("[1]");
    await turn();
    const shown = target.answer.value;
    follower.refresh();
    question(1).answer("[1]");
    await turn();
    expect(target.answer.value).toBe(shown);
  });

  it("does not ask again while the same question is on its way, and does not call a refresh pending", async () => {
    const { asked, question, target, follower } = startFollowing();
    follower.refresh();
    expect(asked).toHaveLength(1);
    question(0).answer("1");
    await turn();
    follower.refresh();
    expect(asked).toHaveLength(2);
    expect(target.pending.value).toBe(false);
  });

  it("asks several addresses together, and shows their answers in order", async () => {
    const { asked, question, request, target } = startFollowing();
    request.value = "./b\n./c";
    expect(asked.slice(1).map(({ url }) => url)).toEqual(["./b", "./c"]);
    question(2).answer("3");
    question(1).answer("2");
    await turn();
    expect(target.answer.value).toEqual([2, 3]);
  });

  it("retries a failure, and leaves a good answer alone", async () => {
    const { asked, question, follower } = startFollowing();
    question(0).fail("TensorBoard does not answer.");
    await turn();
    follower.retry();
    question(1).answer("1");
    await turn();
    follower.retry();
    expect(asked).toHaveLength(2);
  });

  it("forgets everything when there is nothing to ask", async () => {
    const { question, request, target } = startFollowing();
    question(0).answer("1");
    await turn();
    request.value = "";
    expect(target.answer.value).toBeNull();
    expect(target.pending.value).toBe(false);
  });

  it("sends only the request that stood long enough", async () => {
    const { asked, request } = startFollowing(20);
    request.value = "./b";
    request.value = "./c";
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(asked.map(({ url }) => url)).toEqual(["./c"]);
  });
});
