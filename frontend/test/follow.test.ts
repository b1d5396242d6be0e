import { signal } from "@preact/signals";
import { describe, expect, it } from "vitest";
import { follow, resource } from "../src/follow";

/** A request that waits for its answer. */
interface Question {
  readonly url: string;
  readonly signal: AbortSignal;
  readonly answer: (text: string) => void;
  readonly fail: (message: string) => void;
}

/** Follow a plugin whose answers the test sends. */
function startFollowing(delayMs = 0) {
  const asked: Question[] = [];
  const read = (url: string, abort: AbortSignal): Promise<string> =>
    new Promise((resolve, reject) => {
      asked.push({ url, signal: abort, answer: resolve, fail: (message) => reject(new Error(message)) });
    });
  const [request, target] = [signal("./a"), resource<unknown[]>()];
  const follower = follow({ request, target, decode: (all) => [...all], read, delayMs });
  const question = (index: number): Question => {
    const found = asked[index];
    if (found === undefined) throw new Error(`question ${index} was not asked`);
    return found;
  };
  return { asked, question, request, target, follower };
}

/** Let all waiting callbacks run. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

describe("follow", () => {
  it("sends the request at once, and shows its answer", async () => {
    const { question, target } = startFollowing();
    expect(target.pending.value).toBe(true);
    question(0).answer("1");
    await nextTurn();
    expect(target.answer.value).toEqual([1]);
    expect(target.pending.value).toBe(false);
  });

  it("never lets an older answer replace a newer answer", async () => {
    const { question, request, target } = startFollowing();
    request.value = "./b";
    question(1).answer("2");
    await nextTurn();
    question(0).answer("1");
    await nextTurn();
    expect(target.answer.value).toEqual([2]);
    expect(question(0).signal.aborted).toBe(true);
  });

  it("keeps the last good answer beside a failure, and drops the failure with the next answer", async () => {
    const { question, target, follower } = startFollowing();
    question(0).answer("1");
    await nextTurn();
    follower.refresh();
    question(1).fail("TensorBoard does not answer.");
    await nextTurn();
    expect(target.answer.value).toEqual([1]);
    expect(target.failure.value).toBe("TensorBoard does not answer.");
    follower.refresh();
    question(2).answer("2");
    await nextTurn();
    expect(target.answer.value).toEqual([2]);
    expect(target.failure.value).toBeNull();
  });

  it("reports an answer that is not JSON", async () => {
    const { question, target } = startFollowing();
    question(0).answer("<html>");
    await nextTurn();
    expect(target.answer.value).toBeNull();
    expect(target.failure.value).toContain("JSON");
  });

  it("does not draw an unchanged answer again", async () => {
    const { question, target, follower } = startFollowing();
    question(0).answer("[1]");
    await nextTurn();
    const shown = target.answer.value;
    follower.refresh();
    question(1).answer("[1]");
    await nextTurn();
    expect(target.answer.value).toBe(shown);
  });

  it("sends no request twice at the same time, and does not count a refresh as pending", async () => {
    const { asked, question, target, follower } = startFollowing();
    follower.refresh();
    expect(asked).toHaveLength(1);
    question(0).answer("1");
    await nextTurn();
    follower.refresh();
    expect(asked).toHaveLength(2);
    expect(target.pending.value).toBe(false);
  });

  it("reads several addresses together, and shows their answers in order", async () => {
    const { asked, question, request, target } = startFollowing();
    request.value = "./b\n./c";
    expect(asked.slice(1).map(({ url }) => url)).toEqual(["./b", "./c"]);
    question(2).answer("3");
    question(1).answer("2");
    await nextTurn();
    expect(target.answer.value).toEqual([2, 3]);
  });

  it("retries a failure, and not a good answer", async () => {
    const { asked, question, follower } = startFollowing();
    question(0).fail("TensorBoard does not answer.");
    await nextTurn();
    follower.retry();
    question(1).answer("1");
    await nextTurn();
    follower.retry();
    expect(asked).toHaveLength(2);
  });

  it("drops the answer when the request is empty", async () => {
    const { question, request, target } = startFollowing();
    question(0).answer("1");
    await nextTurn();
    request.value = "";
    expect(target.answer.value).toBeNull();
    expect(target.pending.value).toBe(false);
  });

  it("sends only a request that stayed unchanged for the delay", async () => {
    const { asked, request } = startFollowing(20);
    request.value = "./b";
    request.value = "./c";
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(asked.map(({ url }) => url)).toEqual(["./c"]);
  });
});
