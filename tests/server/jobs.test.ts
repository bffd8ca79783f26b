// The queue: one at a time, bounded, fair, and nothing left of those who went away.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { JobQueue } from "../../src/server/jobs.js";
import { refusal } from "./refusal.js";

const signal = new AbortController().signal;
const never = () => new Promise<never>(() => {});
const settle = () => new Promise((resolve) => setImmediate(resolve));

describe("order", () => {
  test("one at a time, callers in turns", async () => {
    const queue = new JobQueue();
    const order: string[] = [];
    let running = 0;
    const work = (name: string) => async () => {
      running++;
      expect(running).toBe(1);
      await settle();
      order.push(name);
      running--;
    };
    const jobs = [
      ["a1", "a"],
      ["a2", "a"],
      ["a3", "a"],
      ["b1", "b"],
      ["c1", "c"],
      ["a4", "a"],
    ].map(([name, caller]) => queue.submit(work(name as string), { caller, signal }));
    expect(jobs.map(({ isWaiting }) => isWaiting)).toEqual([false, true, true, true, true, true]);
    expect([queue.running, queue.queued]).toEqual([1, 5]);
    await Promise.all(jobs.map(({ result }) => result));
    expect(order).toEqual(["a1", "a2", "b1", "c1", "a3", "a4"]);
    expect([queue.running, queue.queued]).toEqual([0, 0]);
  });

  test("a job that fails, or throws at once, holds up nobody", async () => {
    const queue = new JobQueue();
    const failing = queue.submit(
      () => {
        throw new Error("at once");
      },
      { caller: undefined, signal },
    );
    const next = queue.submit(async () => "done", { caller: undefined, signal });
    await expect(failing.result).rejects.toThrow("at once");
    expect(await next.result).toBe("done");
  });
});

describe("bounds", () => {
  test("64 in all, 32 of a key, none for nobody", async () => {
    const queue = new JobQueue();
    const add = (caller?: string) => void queue.submit(never, { caller, signal }).result.catch(() => {});
    add("a");
    for (let i = 0; i < 32; i++) add("a");
    const own = await refusal(() => add("a"));
    expect([own.status, own.code, own.message]).toEqual([429, "queue_full", expect.stringMatching(/this key has 32/)]);
    for (let i = 0; i < 32; i++) add("b");
    const all = await refusal(() => add("c"));
    expect(all.message).toMatch(/64 jobs are waiting/);
    expect(Number(all.headers["retry-after"])).toBe(325);
    expect((await refusal(() => queue.checkRoom(undefined))).code).toBe("queue_full");

    const shared = new JobQueue();
    for (let i = 0; i < 65; i++) void shared.submit(never, { caller: undefined, signal });
    expect(shared.queued).toBe(64);
    expect((await refusal(() => shared.checkRoom(undefined))).code).toBe("queue_full");
  });

  test("after drain nothing is taken, and what runs is waited for", async () => {
    const queue = new JobQueue();
    let end = () => {};
    const job = queue.submit(
      () =>
        new Promise<void>((resolve) => {
          end = resolve;
        }),
      { caller: undefined, signal },
    );
    await settle();
    let isDrained = false;
    const drained = queue.drain().then(() => {
      isDrained = true;
    });
    expect((await refusal(() => queue.checkRoom("a"))).code).toBe("shutting_down");
    await settle();
    expect(isDrained).toBe(false);
    end();
    await Promise.all([job.result, drained]);
    await new JobQueue().drain();
  });
});

test("who leaves while waiting takes up no place; any order of coming and going ends with an empty queue", async () => {
  const step = fc.record({ caller: fc.constantFrom("a", "b", undefined), leaves: fc.boolean(), fails: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const queue = new JobQueue({ maxQueued: 20, maxQueuedPerCaller: 10 });
      const outcomes = steps.map(({ caller, leaves, fails }) => {
        const controller = new AbortController();
        const work = async () => {
          await settle();
          if (fails) throw new Error("failed");
        };
        try {
          const { result } = queue.submit(work, { caller, signal: controller.signal });
          if (leaves) controller.abort("left");
          return result.then(
            () => "done",
            (error) => String(error),
          );
        } catch (error) {
          return (error as { code: string }).code;
        }
      });
      expect(queue.queued).toBeLessThanOrEqual(20);
      for (const outcome of await Promise.all(outcomes))
        expect(["done", "left", "Error: failed", "queue_full"]).toContain(outcome);
      expect([queue.running, queue.queued]).toEqual([0, 0]);
    }),
    { numRuns: 30 },
  );
  const queue = new JobQueue();
  const gone = AbortSignal.abort("left");
  void queue.submit(never, { caller: undefined, signal });
  await expect(queue.submit(never, { caller: undefined, signal: gone }).result).rejects.toBe("left");
  expect(queue.queued).toBe(0);
});
