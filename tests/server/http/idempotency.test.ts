// Requests that come again with the same Idempotency-Key: what is done once, what is given again, what is forgotten.

import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { json } from "../../../src/server/http/answers.js";
import { ApiError } from "../../../src/server/http/api-error.js";
import type { Caller } from "../../../src/server/http/caller.js";
import { IdempotencyKeys } from "../../../src/server/http/idempotency.js";
import type { HttpResponse } from "../../../src/server/http/messages.js";
import type { Call } from "../../../src/server/http/routes.js";
import { eventStream } from "../../../src/server/http/sse.js";
import { callerOf, refusal, requestOf } from "../refusal.js";

function callOf(key: string | undefined, caller: Partial<Caller> = {}, target = "/v1/images/generations?a=b"): Call {
  const request = { ...requestOf([], key === undefined ? {} : { "idempotency-key": key }), target };
  return { request, caller: callerOf(caller), id: "", query: new URLSearchParams() };
}

/** Work that counts how often it is done and ends when it is told to. */
function slowWork() {
  const work = Object.assign(
    async ({ signal }: Caller): Promise<HttpResponse> => {
      work.count++;
      await new Promise((resolve, reject) => {
        work.end = resolve;
        signal.addEventListener("abort", () => reject(signal.reason));
      });
      return json({ done: work.count });
    },
    { count: 0, end: (_: unknown) => {} },
  );
  return work;
}

const text = async ({ body }: HttpResponse) => {
  let all = "";
  if (typeof body === "string") return body;
  for await (const chunk of body as AsyncIterable<string>) all += chunk;
  return all;
};

test("without a key everything is done", async () => {
  const keys = new IdempotencyKeys();
  let count = 0;
  const work = async () => json(++count);
  for (const done of ["1", "2"]) expect(await text(await keys.once(callOf(undefined), {}, work))).toBe(done);
});

test("with a key once, also for those who ask while it is being done, and by caller", async () => {
  const keys = new IdempotencyKeys();
  const work = slowWork();
  const body = { prompt: "a", images: [new Uint8Array([1, 2])] };
  const first = keys.once(callOf("k"), body, work);
  await sleep(1);
  const second = keys.once(callOf("k"), structuredClone(body), work);
  await sleep(1);
  work.end(undefined);
  expect(await text(await first)).toBe('{"done":1}');
  expect((await first).headers["idempotent-replayed"]).toBeUndefined();
  for (const again of [second, keys.once(callOf("k"), body, work)]) {
    expect(await again).toEqual({
      status: 200,
      headers: { ...(await first).headers, "idempotent-replayed": "true" },
      body: '{"done":1}',
    });
  }
  const other = keys.once(callOf("k", { key: "another" }), body, work);
  await sleep(1);
  work.end(undefined);
  expect(await text(await other)).toBe('{"done":2}');
});

test("the key of another request is refused", async () => {
  const keys = new IdempotencyKeys();
  const work = async () => json(1);
  await keys.once(callOf("k"), { prompt: "a", n: 1 }, work);
  for (const [body, target] of [
    [{ prompt: "b", n: 1 }, undefined],
    [{ prompt: "a", n: "1" }, undefined],
    [{ prompt: "a", n: 1, m: [] }, undefined],
    [{ prompt: "a", n: 1 }, "/v1/images/edits"],
  ] as const) {
    const error = await refusal(() => keys.once(callOf("k", {}, target), body, work));
    expect([error.status, error.code, error.param]).toEqual([400, "idempotency_key_reused", "Idempotency-Key"]);
  }
  // What is undefined was not sent.
  expect(await text(await keys.once(callOf("k"), { prompt: "a", n: 1, m: undefined }, work))).toBe("1");
  for (const bad of ["", "x".repeat(256), "é", "a\tb"]) {
    const error = await refusal(() => keys.once(callOf(bad), {}, work));
    expect([error.status, error.code]).toEqual([400, "invalid_idempotency_key"]);
  }
});

test("what was refused was not done: the key is free", async () => {
  const keys = new IdempotencyKeys();
  let isFull = true;
  const work = async () => {
    if (isFull) throw new ApiError("too_many_requests", "queue_full", "the queue is full, try again later");
    return json("drawn");
  };
  expect((await refusal(() => keys.once(callOf("k"), {}, work))).code).toBe("queue_full");
  isFull = false;
  expect(await text(await keys.once(callOf("k"), { other: true }, work))).toBe('"drawn"');
});

test("work goes on when its caller leaves, and stops when nobody comes back", async () => {
  const keys = new IdempotencyKeys({ patience_ms: 100 });
  for (const comesBack of [true, false]) {
    const work = slowWork();
    const leaving = new AbortController();
    const key = `leaves ${comesBack}`;
    const first = keys.once(callOf(key, { signal: leaving.signal }), {}, work);
    first.catch(() => undefined);
    await sleep(1);
    leaving.abort(new Error("gone"));
    await sleep(20);
    if (comesBack) {
      const second = keys.once(callOf(key), {}, work);
      await sleep(200);
      work.end(undefined);
      expect(await text(await second)).toBe('{"done":1}');
    } else {
      await expect(first).rejects.toThrow("gone");
      const second = keys.once(callOf(key), {}, work);
      await sleep(1);
      work.end(undefined);
      expect(await text(await second)).toBe('{"done":2}');
    }
  }
});

test("a stream is given again from its beginning, while it lasts and after", async () => {
  const keys = new IdempotencyKeys();
  let goOn = () => {};
  const paused = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  let count = 0;
  const work = async () => {
    count++;
    return eventStream(
      (async function* () {
        yield { type: "a" };
        await paused;
        yield { type: "b" };
      })(),
    );
  };
  const first = text(await keys.once(callOf("k"), {}, work));
  const second = text(await keys.once(callOf("k"), {}, work));
  goOn();
  const expected = 'event: a\ndata: {"type":"a"}\n\nevent: b\ndata: {"type":"b"}\n\ndata: [DONE]\n\n';
  expect([await first, await second]).toEqual([expected, expected]);
  const third = await keys.once(callOf("k"), {}, work);
  expect([third.headers["content-type"], third.headers["idempotent-replayed"]]).toEqual([
    "text/event-stream; charset=utf-8",
    "true",
  ]);
  expect([await text(third), count]).toEqual([expected, 1]);
});

test("answers are kept for a time", async () => {
  const keys = new IdempotencyKeys({ keep_ms: 50 });
  let count = 0;
  const ask = async () => text(await keys.once(callOf("k"), {}, async () => json(++count)));
  expect([await ask(), await ask()]).toEqual(["1", "1"]);
  await sleep(100);
  expect(await ask()).toBe("2");
});

test("keys are bounded in number, answers in bytes; what was done is not done again while it is known", async () => {
  const keys = new IdempotencyKeys({ maxKeys: 3, maxBytes: 1000 });
  const ask = (key: string, size: number) => keys.once(callOf(key), {}, async () => json("x".repeat(size)));
  for (const [key, size] of [
    ["a", 400],
    ["b", 400],
    ["c", 400],
  ] as const)
    await ask(key, size);
  await sleep(1);
  expect((await ask("b", 1)).headers["idempotent-replayed"]).toBe("true");
  const gone = await refusal(() => ask("a", 1));
  expect([gone.status, gone.code]).toEqual([409, "idempotent_answer_gone"]);
  expect(await text(await ask("d", 2000))).toHaveLength(2002); // and "a" is forgotten
  await sleep(1);
  expect((await refusal(() => ask("d", 1))).code).toBe("idempotent_answer_gone");
  expect((await ask("c", 1)).headers["idempotent-replayed"]).toBe("true");
  expect(await text(await ask("a", 3))).toBe('"xxx"');
});
