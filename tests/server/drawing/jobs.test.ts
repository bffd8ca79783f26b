// The queue by itself: order, fairness, bounds, cancellation.

import { describe, expect, test } from "vitest";
import { JobQueue, type Turn } from "../../../src/server/drawing/jobs.js";
import { ApiError } from "../../../src/server/http/api-error.js";

/** A queue whose jobs end when they are told to, by a clock that does as well, and the order in which they began. */
function controlled(options?: ConstructorParameters<typeof JobQueue>[0]) {
  let now = 0;
  const queue = new JobQueue({ now: () => now, ...options });
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
  /** @param ms that have passed since the last call */
  const end = async (name: string, ms = 0) => {
    now += ms;
    ends.get(name)?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  /** A job of many parts, each of `part_ms`, between which it lets others in. */
  const submitLong = (name: string, caller: string | undefined, parts: number, part_ms: number) => {
    const stop = new AbortController();
    const work = async (_: AbortSignal, turn: Turn) => {
      for (let i = 0; i < parts; i++) {
        began.push(`${name}.${i}`);
        await new Promise((resolve) => setImmediate(resolve));
        now += part_ms;
        if (i < parts - 1 && turn.isWanted()) await turn.pass();
      }
      return name;
    };
    return { ...queue.submit(work, { caller, signal: stop.signal, bytes: 0 }), cancel: () => stop.abort("gone") };
  };
  return { queue, began, submit, submitLong, end };
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
    await end("");
    for (let i = 0; i < names.length; i++) await end(began.at(-1) ?? "", 100);
    await end("");
    expect(began).toEqual(["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
  });

  test("it is time that is shared, not turns", async () => {
    const { began, submit, end } = controlled();
    const names = ["a1", "a2", "a3", "b1", "b2", "b3", "b4", "b5", "b6", "b7"];
    for (const name of names) void submit(name, { caller: name[0] }).result;
    await end("");
    for (let i = 0; i < names.length; i++) {
      const name = began.at(-1) ?? "";
      await end(name, name.startsWith("a") ? 3000 : 1000);
    }
    await end("");
    expect(began).toEqual(["a1", "b1", "b2", "b3", "a2", "b4", "b5", "b6", "a3", "b7"]);
  });

  test("nobody saves up, and nobody is held to what was long ago", async () => {
    const { began, submit, end } = controlled();
    void submit("a1", { caller: "a" }).result;
    void submit("a2", { caller: "a" }).result;
    await end("");
    await end("a1", 60_000);
    // begins where the others are, though it has had nothing
    for (const name of ["b1", "b2", "a3"]) void submit(name, { caller: name[0] }).result;
    await end("a2", 1000);
    await end("b1", 2000);
    await end("a3", 1000);
    expect(began).toEqual(["a1", "a2", "b1", "a3", "b2"]);
    await end("b2", 60_000);
    // everything has been idle: all begin anew
    for (const name of ["c1", "b3", "c2"]) void submit(name, { caller: name[0] }).result;
    await end("");
    await end("c1", 1000);
    expect(began.at(-1)).toBe("b3");
    await end("b3");
    await end("c2");
  });

  test("a long job lets others in between its parts and goes on before its caller's next", async () => {
    const { began, queue, submit, submitLong, end } = controlled();
    const video = submitLong("a", "a", 6, 1000);
    void submit("a2", { caller: "a" }).result;
    await end("");
    void submit("b", { caller: "b" }).result;
    await end("");
    await end("");
    expect(began).toEqual(["a.0", "b"]);
    expect([queue.running, queue.queued]).toEqual([1, 2]);
    await end("b", 100);
    for (let i = 0; i < 8; i++) await end("");
    expect(await video.result).toBe("a");
    expect(began).toEqual(["a.0", "b", "a.1", "a.2", "a.3", "a.4", "a.5", "a2"]);
    await end("a2");
    expect([queue.running, queue.queued]).toEqual([0, 0]);
  });

  test("two long jobs share; short parts are not broken up for each other", async () => {
    const { began, submitLong, end } = controlled();
    const jobs = [submitLong("a", "a", 12, 100), submitLong("b", "b", 12, 100)];
    for (let i = 0; i < 60; i++) await end("");
    expect(await Promise.all(jobs.map(({ result }) => result))).toEqual(["a", "b"]);
    const runs = began
      .map((name) => name[0])
      .join("")
      .match(/a+|b+/g);
    expect(runs?.map((run) => run.length)).toEqual([5, 6, 5, 5, 2, 1]);
  });

  test("a job of the same caller, or of nobody in particular, waits for a long one to end", async () => {
    for (const caller of ["a", undefined]) {
      const { began, submit, submitLong, end } = controlled();
      void submitLong("a", caller, 3, 10_000).result;
      void submit("b", { caller }).result;
      for (let i = 0; i < 5; i++) await end("");
      expect(began).toEqual(["a.0", "a.1", "a.2", "b"]);
    }
  });

  test("a job that was put off can be cancelled and leaves nothing", async () => {
    const { queue, began, submit, submitLong, end } = controlled();
    const video = submitLong("a", "a", 6, 1000);
    void submit("b", { caller: "b" }).result;
    await end("");
    await end("");
    expect(began.at(-1)).toBe("b");
    video.cancel();
    await expect(video.result).rejects.toBe("gone");
    expect([queue.running, queue.queued]).toEqual([1, 0]);
    await end("b");
    expect([queue.running, queue.queued]).toEqual([0, 0]);
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
