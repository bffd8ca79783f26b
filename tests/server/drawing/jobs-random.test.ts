// The queue under any order of coming, going and failing; and the bounds that the contract states.

import fc from "fast-check";
import { expect, test } from "vitest";
import { JobQueue } from "../../../src/server/drawing/jobs.js";
import { refusal } from "../refusal.js";

const signal = new AbortController().signal;
const bytes = 0;
const never = () => new Promise<never>(() => {});
const settle = () => new Promise((resolve) => setImmediate(resolve));

test("64 in all, 32 of a key; without keys all share the 64", async () => {
  const queue = new JobQueue();
  const add = (caller?: string) => void queue.submit(never, { caller, signal, bytes });
  for (let i = 0; i < 33; i++) add("a");
  const own = await refusal(() => add("a"));
  expect([own.status, own.code, own.message]).toEqual([429, "queue_full", expect.stringMatching(/this key has 32/)]);
  for (let i = 0; i < 32; i++) add("b");
  const all = await refusal(() => add("c"));
  expect(all.message).toMatch(/64 jobs are waiting/);
  // Of five seconds each, before anything is known.
  expect(all.headers["retry-after"]).toBe("325");
  const shared = new JobQueue();
  for (let i = 0; i < 65; i++) void shared.submit(never, { caller: undefined, signal, bytes });
  expect(shared.queued).toBe(64);
  expect((await refusal(() => shared.checkRoom(undefined))).code).toBe("queue_full");
});

test("who has left before, or leaves while waiting, takes up no place", async () => {
  const queue = new JobQueue();
  void queue.submit(never, { caller: undefined, signal, bytes });
  const gone = queue.submit(never, { caller: undefined, signal: AbortSignal.abort("left"), bytes });
  await expect(gone.result).rejects.toBe("left");
  expect(queue.queued).toBe(0);
});

test("whatever happens, one runs at a time and the queue ends empty", async () => {
  const step = fc.record({ caller: fc.constantFrom("a", "b", undefined), leaves: fc.boolean(), fails: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const queue = new JobQueue({ maxQueued: 20, maxQueuedPerCaller: 10 });
      let running = 0;
      const outcomes = steps.map(({ caller, leaves, fails }) => {
        const controller = new AbortController();
        const work = async () => {
          expect(++running).toBe(1);
          await settle();
          running--;
          if (fails) throw new Error("failed");
        };
        try {
          const { result } = queue.submit(work, { caller, signal: controller.signal, bytes });
          if (leaves) controller.abort("left");
          return result.then(() => "done", String);
        } catch (error) {
          return (error as { code: string }).code;
        }
      });
      expect(queue.queued).toBeLessThanOrEqual(20);
      for (const outcome of await Promise.all(outcomes)) {
        expect(["done", "left", "Error: failed", "queue_full"]).toContain(outcome);
      }
      expect([queue.running, queue.queued]).toEqual([0, 0]);
    }),
    { numRuns: 30 },
  );
});
