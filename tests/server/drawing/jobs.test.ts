// The queue by itself: order, fairness, bounds, cancellation.

import { describe, expect, test } from "vitest";
import { JobQueue } from "../../../src/server/drawing/jobs.js";
import { ApiError } from "../../../src/server/http/api-error.js";

/** A queue whose jobs end when they are told to, and the order in which they began. */
function controlled(options?: ConstructorParameters<typeof JobQueue>[0]) {
  const queue = new JobQueue(options);
  const began: string[] = [];
  const ends = new Map<string, () => void>();
  const submit = (name: string, { caller, bytes = 0 }: { caller?: string; bytes?: number } = {}) => {
    const stop = new AbortController();
    const work = (signal: AbortSignal) => {
      began.push(name);
      return new Promise<string>((resolve, reject) => {
        ends.set(name, () => resolve(name));
        signal.addEventListener("abort", () => reject(signal.reason));
      });
    };
    return { ...queue.submit(work, { caller, signal: stop.signal, bytes }), cancel: () => stop.abort("gone") };
  };
  const end = async (name: string) => {
    ends.get(name)?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { queue, began, submit, end };
}

const refusal = (work: () => unknown): ApiError => {
  try {
    work();
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
  throw new Error("it was taken");
};

describe("order", () => {
  test("one job runs at a time, the first at once", async () => {
    const { queue, began, submit, end } = controlled();
    expect(submit("a").isWaiting).toBe(false);
    const second = submit("b");
    expect(second.isWaiting).toBe(true);
    await end("none");
    expect([began, queue.running, queue.queued]).toEqual([["a"], 1, 1]);
    await end("a");
    await end("b");
    expect(await second.result).toBe("b");
    expect([began, queue.running, queue.queued]).toEqual([["a", "b"], 0, 0]);
  });

  test("callers take turns, whoever came first with however many", async () => {
    const { began, submit, end } = controlled();
    const names = ["a1", "a2", "a3", "a4", "b1", "c1", "b2"];
    for (const name of names) void submit(name, { caller: name[0] }).result;
    for (let i = 0; i < names.length; i++) await end(began.at(-1) ?? "");
    await end("");
    expect(began).toEqual(["a1", "a2", "b1", "c1", "a3", "b2", "a4"]);
  });

  test("a job that fails makes room for the next", async () => {
    const queue = new JobQueue();
    const signal = new AbortController().signal;
    const failing = queue.submit(() => Promise.reject(new Error("no")), { caller: undefined, signal, bytes: 0 });
    const next = queue.submit(async () => 1, { caller: undefined, signal, bytes: 0 });
    await expect(failing.result).rejects.toThrow("no");
    expect(await next.result).toBe(1);
  });
});

describe("bounds", () => {
  test("the whole queue: 429 with Retry-After, and room again when one goes", async () => {
    const { submit, end } = controlled({ maxQueued: 2 });
    for (const name of ["a", "b", "c"]) void submit(name).result;
    const error = refusal(() => submit("d"));
    expect(error).toMatchObject({ type: "too_many_requests", status: 429, code: "queue_full" });
    expect(Number(error.headers["retry-after"])).toBeGreaterThan(0);
    await end("");
    await end("a");
    expect(submit("d").isWaiting).toBe(true);
  });

  test("one caller's share, which others do not touch", () => {
    const { submit } = controlled({ maxQueuedPerCaller: 1 });
    for (const caller of ["x", "x"]) void submit("a", { caller }).result;
    expect(refusal(() => submit("b", { caller: "x" })).status).toBe(429);
    expect(submit("c", { caller: "y" }).isWaiting).toBe(true);
  });

  test("memory: a job that runs alone may hold any amount, waiting ones only so much in all", async () => {
    const { submit, end } = controlled();
    const half = 300 * 1024 * 1024;
    void submit("a", { bytes: 2 * half }).result;
    expect(refusal(() => submit("b", { bytes: 1 }))).toMatchObject({ status: 503, code: "too_many_bytes" });
    await end("");
    await end("a");
    void submit("c", { bytes: half }).result;
    expect(refusal(() => submit("d", { bytes: half })).status).toBe(503);
  });
});

describe("ends", () => {
  test("a waiting job that is cancelled goes at once, its caller's others stay", async () => {
    const { queue, began, submit, end } = controlled();
    void submit("a", { caller: "x" }).result;
    const second = submit("b", { caller: "x" });
    void submit("c", { caller: "x" }).result;
    second.cancel();
    await expect(second.result).rejects.toBe("gone");
    expect(queue.queued).toBe(1);
    await end("a");
    expect(began).toEqual(["a", "c"]);
  });

  test("draining takes no new jobs and waits for the old ones", async () => {
    const { queue, submit, end } = controlled();
    void submit("a").result;
    const drained = queue.drain().then(() => "drained");
    expect(refusal(() => submit("b"))).toMatchObject({ status: 503, code: "shutting_down" });
    await end("");
    await end("a");
    expect(await drained).toBe("drained");
  });

  test("stopping fails what runs and what waits", async () => {
    const { queue, submit, end } = controlled();
    const jobs = [submit("a"), submit("b")];
    await end("");
    const reason = new ApiError("overloaded", "shutting_down", "stopped");
    const outcomes = Promise.allSettled(jobs.map(({ result }) => result));
    await queue.stop(reason);
    expect((await outcomes).map((outcome) => outcome.status === "rejected" && outcome.reason)).toEqual([
      reason,
      reason,
    ]);
    expect([queue.running, queue.queued]).toEqual([0, 0]);
  });
});
