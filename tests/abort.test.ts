// Signals made of signals hold on to what they depend on, and let go of it when they are told to.

import { getEventListeners } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { firstAborted } from "../src/abort.js";

test("the first that is aborted gives its reason, also if it was before", () => {
  const [a, b] = [new AbortController(), new AbortController()];
  const { signal } = firstAborted(a.signal, b.signal);
  expect(signal.aborted).toBe(false);
  b.abort("b");
  a.abort("a");
  expect(signal.reason).toBe("b");
  expect(firstAborted(new AbortController().signal, a.signal).signal.reason).toBe("a");
});

test("released, it holds nothing and follows nobody", () => {
  const source = new AbortController();
  const { signal, release } = firstAborted(source.signal);
  expect(getEventListeners(source.signal, "abort")).toHaveLength(1);
  release();
  expect(getEventListeners(source.signal, "abort")).toHaveLength(0);
  source.abort();
  expect(signal.aborted).toBe(false);
});

test("one that only a listener of another program follows outlives any collection of memory", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const late = new AbortController();
  const timer = setTimeout(() => late.abort("late"), 100);
  const aborted = new Promise((resolve) => {
    const { signal } = firstAborted(new AbortController().signal, late.signal);
    signal.addEventListener("abort", () => resolve(signal.reason));
  });
  for (let i = 0; i < 10; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  expect(await aborted).toBe("late");
  clearTimeout(timer);
});
