// What happens to a running server: its engine dies, its disk is full, it is killed while it writes, its clock jumps, it
// is stopped under load, a thousand callers change their minds. Where processes die they are those of the built program.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { buildProgram } from "../cli/program.js";
import { openServer, parseEvents, postJson, type SseEvent, smallRequest, type TestServer } from "./running.js";
import {
  childrenOf,
  isAlive,
  metric,
  type ServedProgram,
  type StoredFile,
  serveProgram,
  storedFiles,
  until,
  untilJobs,
} from "./served-program.js";

beforeAll(buildProgram);

/** Takes many seconds, so that things can happen meanwhile. */
const longImage = { width: 512, height: 512, steps: 8, num_images: 10 };

const respond = (url: string, body: unknown, init?: RequestInit) => postJson(`${url}/v1/responses`, body, init);
const statusOf = async (url: string, path: string) => (await fetch(`${url}${path}`)).status;

async function background(url: string, image: object = {}) {
  const response = await respond(url, smallRequest({ ...image }, { background: true }));
  return { status: response.status, body: await response.json() };
}

async function follow(url: string, id: string): Promise<SseEvent[]> {
  return parseEvents(await (await fetch(`${url}/v1/responses/${id}?stream=true`)).text());
}

const resource = async (url: string, id: string) => (await fetch(`${url}/v1/responses/${id}`)).json();

/** Of a new connection; `fetch` may use one that it has. */
function connectionError(url: string): Promise<string | undefined> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port) });
    socket.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code));
    socket.once("connect", () => {
      socket.destroy();
      resolve(undefined);
    });
  });
}

function expectFailed(events: SseEvent[], code: string): void {
  expect(events.slice(-2)).toMatchObject([
    { type: "error", error: { code } },
    { type: "response.failed", response: { status: "failed", error: { code }, output: [] } },
  ]);
}

describe("the engine is killed in the middle of a job", () => {
  let server: TestServer;
  let url: string;
  const health: number[] = [];
  const readiness: number[] = [];
  let isOver = false;
  let watching: Promise<void>;

  beforeAll(async () => {
    server = await openServer();
    ({ url } = server);
    watching = (async () => {
      while (!isOver) {
        health.push(await statusOf(url, "/healthz"));
        readiness.push(await statusOf(url, "/readyz"));
        await sleep(20); // often enough to see the engine's absence
      }
    })();
  });
  afterAll(async () => {
    isOver = true;
    await watching;
    await server.end();
  });

  /** With a job running and one waiting. */
  async function killEngine(): Promise<void> {
    await untilJobs(url, { queued: 1, running: 1 });
    await sleep(100); // the engine computes by then
    readiness.length = 0;
    process.kill(server.enginePid as number, "SIGKILL");
  }

  /** It was away, and is back. */
  async function expectReplaced(restarts: number): Promise<void> {
    await until(() => readiness.at(-1) === 200);
    expect(readiness).toContain(503);
    expect(new Set(health)).toEqual(new Set([200]));
    expect(await metric(url, "daybreak_engine_restarts_total")).toBe(restarts);
  }

  test("an answer is 500 and not to be repeated; a waiting stream goes on", async () => {
    const running = respond(url, smallRequest(longImage));
    await untilJobs(url, { queued: 0, running: 1 });
    const waiting = respond(url, smallRequest({}, { stream: true })).then(async (answer) => answer.text());
    await killEngine();
    const failed = await running;
    expect([failed.status, failed.headers.get("x-should-retry")]).toEqual([500, "false"]);
    expect((await failed.json()).error).toMatchObject({ type: "model_error", code: "engine_crashed" });
    expect(parseEvents(await waiting).at(-1)).toMatchObject({
      type: "response.completed",
      response: { status: "completed" },
    });
    await expectReplaced(1);
  });

  test("a stream ends with error and response.failed; a waiting background response is drawn", async () => {
    const running = respond(url, smallRequest(longImage, { stream: true })).then((answer) => answer.text());
    await untilJobs(url, { queued: 0, running: 1 });
    const waiting = await background(url);
    await killEngine();
    expectFailed(parseEvents(await running), "engine_crashed");
    expect((await follow(url, waiting.body.id)).at(-1)?.type).toBe("response.completed");
    await expectReplaced(2);
  });

  test("a background response is failed; a waiting request is answered", async () => {
    const running = await background(url, longImage);
    const waiting = respond(url, smallRequest());
    await killEngine();
    const events = await follow(url, running.body.id);
    expectFailed(events, "engine_crashed");
    expect(await resource(url, running.body.id)).toEqual((events.at(-1) as SseEvent).response);
    expect((await waiting).status).toBe(200);
    await expectReplaced(3);
  });
});

describe("a small budget", () => {
  const budgetBytes = 50_000;
  let server: TestServer;
  let url: string;
  let folder: string;

  beforeAll(async () => {
    server = await openServer({ mediaBudgetBytes: budgetBytes });
    ({ url, dataDir: folder } = server);
  });
  afterAll(() => server.end());

  test("the least recently read go when the budget is used up, also under load", async () => {
    const first = await (await respond(url, smallRequest())).json();
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, seed) => respond(url, smallRequest({ num_images: 2 }, { seed }))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200));
    expect(await metric(url, "daybreak_media_evictions_total")).toBeGreaterThan(0);
    expect(await metric(url, "daybreak_media_bytes")).toBeLessThanOrEqual(budgetBytes);
    const gone = await fetch(`${url}/v1/responses/${first.id}`);
    expect([gone.status, (await gone.json()).error.code]).toEqual([404, "response_not_found"]);
    const [, image] = first.output[0].content;
    expect((await fetch(image.image_url)).status).toBe(404);
    const newest = await (await (answers.at(-1) as Response)).json();
    expect(await resource(url, newest.id)).toEqual(newest);
  });

  test("a background response that waits longer than its record lasts is there when it is done", async () => {
    const generated = await postJson(`${url}/v1/images/generations`, { prompt: "a", size: "128x128" });
    const picture = `data:image/png;base64,${(await generated.json()).data[0].b64_json}`;
    const blocker = await background(url, longImage);
    const { body } = await background(url);
    // Compactions store their references, without a job, which pushes out what nobody reads.
    const isStored = () => storedFiles(folder).some(({ id }) => id === body.id);
    expect(isStored()).toBe(true);
    for (let i = 0; isStored() && i < 50; i++) {
      const input = [{ role: "user", content: [{ type: "input_image", image_url: picture }] }];
      expect((await postJson(`${url}/v1/responses/compact`, { model: server.modelName, input })).status).toBe(200);
    }
    expect(isStored()).toBe(false);
    await fetch(`${url}/v1/responses/${blocker.body.id}/cancel`, { method: "POST" });
    expect((await follow(url, body.id)).at(-1)?.type).toBe("response.completed");
    expect((await resource(url, body.id)).status).toBe("completed");
  });

  test("one picture above the budget is 507", async () => {
    const format = { width: 512, height: 512 };
    const answer = await respond(url, smallRequest(format));
    expect([answer.status, answer.headers.get("x-should-retry")]).toEqual([507, "false"]);
    expect((await answer.json()).error).toMatchObject({ type: "insufficient_storage", code: "media_too_large" });
    const { body } = await background(url, format);
    expectFailed(await follow(url, body.id), "media_too_large");
    storedFiles(folder);
  });
});

describe("a small disk", () => {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-small-disk-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], { encoding: "utf8" });
  const isMounted = mounted.status === 0;
  afterAll(() => {
    if (isMounted) spawnSync("umount", [folder]);
    rmSync(folder, { recursive: true, force: true });
  });

  /** Takes all of the disk but so many bytes. */
  function fillDisk(leave: number): void {
    writeFileSync(join(folder, "ballast"), Buffer.alloc(0));
    let size = 2 ** 20;
    for (;;) {
      try {
        writeFileSync(join(folder, "ballast"), Buffer.alloc(size));
        break;
      } catch {
        size -= 4096;
      }
    }
    writeFileSync(join(folder, "ballast"), Buffer.alloc(Math.max(0, size - leave)));
  }

  test("a full disk is 507, and works again when there is room", async () => {
    if (!isMounted) {
      const reason = mounted.error?.message ?? mounted.stderr.trim();
      process.stdout.write(`a full disk was not tested, because no small one could be mounted: ${reason}\n`);
      return;
    }
    const server = await openServer({ dataDir: folder });
    onTestFinished(() => server.end());
    const { url } = server;
    fillDisk(0);
    const before = storedFiles(folder);
    const file = await respond(url, smallRequest());
    expect([file.status, file.headers.get("x-should-retry")]).toEqual([507, "false"]);
    expect((await file.json()).error).toMatchObject({ type: "insufficient_storage", code: "media_storage_full" });
    const stream = await (await respond(url, smallRequest({}, { stream: true }))).text();
    expectFailed(parseEvents(stream), "media_storage_full");
    const inline = await respond(url, smallRequest({ response_format: "b64_json" }));
    expect(inline.status).toBe(200);
    const shown = await inline.json();
    expect(shown.status).toBe("completed");
    expect(shown.warnings).toEqual([expect.stringContaining("could not be stored")]);
    expect((await fetch(`${url}/v1/responses/${shown.id}`)).status).toBe(404);
    const refused = await background(url);
    expect([refused.status, refused.body.error?.code]).toEqual([507, "media_storage_full"]);
    const images = await postJson(`${url}/v1/images/generations`, {
      prompt: "a",
      size: "128x128",
      n: 2,
      response_format: "url",
    });
    expect(images.status).toBe(507);
    expect(storedFiles(folder)).toEqual(before);

    // Room for its record, none for its picture.
    fillDisk(24_576);
    const accepted = await background(url, { response_format: "b64_json", num_images: 3 });
    expect(accepted.status).toBe(200);
    expectFailed(await follow(url, accepted.body.id), "media_storage_full");
    expect(await resource(url, accepted.body.id)).toMatchObject({ status: "failed", output: [] });
    storedFiles(folder);

    rmSync(join(folder, "ballast"));
    const again = await respond(url, smallRequest());
    expect(again.status).toBe(200);
    const answer = await again.json();
    expect(answer.warnings).toBeUndefined();
    expect((await fetch(answer.output[0].content[1].image_url)).status).toBe(200);
    storedFiles(folder);
  });
});

describe("the program as a process", () => {
  const dataDir = mkdtempSync(join(tmpdir(), "daybreak-killed-"));
  const servers: ServedProgram[] = [];
  afterAll(async () => {
    await killAll();
    rmSync(dataDir, { recursive: true, force: true });
  });

  async function killAll(): Promise<void> {
    for (const { child, ended } of servers.splice(0)) {
      child.kill("SIGKILL");
      await ended;
    }
  }

  async function serve(args: string[] = [], options: Parameters<typeof serveProgram>[1] = {}) {
    await killAll(); // what a failed test left
    const server = await serveProgram(["--data-dir", dataDir, ...args], options);
    servers.push(server);
    return server;
  }

  /** What the dead server was to leave behind. */
  const stopped = { background: "", done: "" };

  test("a thousand callers who change their minds leave nothing behind, and SIGTERM under load ends in time", async () => {
    const server = await serve(["--grace", "1s"], { hasShiftedClock: true });
    const { url } = server;
    const done = await (await respond(url, smallRequest())).json();
    stopped.done = done.id;
    const files = storedFiles(dataDir).length;
    const heap = async () => {
      await server.shiftClock(0);
      return metric(url, "nodejs_heap_size_used_bytes");
    };
    const wave = async (count: number) => {
      const blocker = await background(url, longImage);
      const vanish = new AbortController();
      const body = smallRequest({}, { stream: true });
      const gone = Array.from({ length: count / 2 }, (_, i) =>
        respond(url, i % 2 === 0 ? body : smallRequest(), { signal: vanish.signal }).then(
          (answer) => answer.text(),
          () => "",
        ),
      );
      const kept = await Promise.all(Array.from({ length: count / 2 }, () => background(url)));
      await untilJobs(url, { queued: count, running: 1 });
      vanish.abort();
      await Promise.allSettled(gone);
      const ids = [...kept.map(({ body }) => body.id), blocker.body.id];
      const states = await Promise.all(
        ids.map(async (id) => (await fetch(`${url}/v1/responses/${id}/cancel`, { method: "POST" })).json()),
      );
      expect(states.map(({ status }) => status)).toEqual(ids.map(() => "cancelled"));
      await untilJobs(url, { queued: 0, running: 0 });
      await Promise.all(ids.map((id) => fetch(`${url}/v1/responses/${id}`, { method: "DELETE" })));
    };
    await wave(64);
    await wave(64);
    const before = await heap();
    for (let i = 2; i < 16; i++) await wave(i < 15 ? 64 : 40);
    const growth = (await heap()) - before;
    expect(growth).toBeLessThan(4_000_000);
    expect(storedFiles(dataDir)).toHaveLength(files);
    expect(server.stderr()).not.toContain("MaxListenersExceededWarning");

    const stream = respond(url, smallRequest(longImage, { stream: true })).then((answer) => answer.text());
    await untilJobs(url, { queued: 0, running: 1 });
    stopped.background = (await background(url, longImage)).body.id;
    const waiting = respond(url, smallRequest(longImage));
    const images = (body: object) =>
      postJson(`${url}/v1/images/generations`, { prompt: "a", size: "512x512", n: 10, ...body });
    const [imageStream, image] = [images({ stream: true }).then((answer) => answer.text()), images({})];
    await untilJobs(url, { queued: 4, running: 1 });
    const engine = childrenOf(server.child.pid as number);
    const began = performance.now();
    server.child.kill("SIGTERM");
    await expect.poll(() => connectionError(url), { timeout: 5000 }).toBe("ECONNREFUSED");
    expectFailed(parseEvents(await stream), "shutting_down");
    for (const answer of [await waiting, await image]) {
      expect(answer.status).toBe(503);
      expect((await answer.json()).error).toMatchObject({ type: "overloaded", code: "shutting_down" });
    }
    const lastBlocks = (await imageStream).split("\n\n").slice(-3);
    expect(lastBlocks).toEqual([expect.stringContaining('"shutting_down"'), "data: [DONE]", ""]);
    expect(await server.ended).toBe(0);
    // One second of grace, at most two for the jobs to stop, and what is left to close; the jobs would take minutes.
    expect(performance.now() - began).toBeLessThan(6000);
    expect(server.logged().at(-1)).toMatchObject({ msg: "stopped" });
    expect(engine.filter(isAlive)).toEqual([]);
    storedFiles(dataDir);
  });

  test("killed while it writes: whole files, readable responses, no process left", async () => {
    let server = await serve();
    expect(await resource(server.url, stopped.background)).toMatchObject({
      status: "failed",
      error: { code: "shutting_down" },
    });
    expect(await resource(server.url, stopped.done)).toMatchObject({ status: "completed" });
    for (let round = 0; round < 3; round++) {
      const { url } = server;
      const engine = childrenOf(server.child.pid as number);
      const completed: { id: string; output: unknown }[] = [];
      const accepted: string[] = [];
      const many = { num_images: 10 };
      for (let i = 0; i < 12; i++) {
        respond(url, smallRequest(many, { seed: i }))
          .then(async (answer) => void completed.push(await answer.json()))
          .catch(() => undefined);
        background(url, many)
          .then(({ body }) => void accepted.push(body.id))
          .catch(() => undefined);
      }
      await until(() => completed.length > 0);
      const pause_ms = Math.random() * 300; // at any moment of the writing
      await sleep(pause_ms);
      server.child.kill("SIGKILL");
      await server.ended;
      await until(() => !engine.some(isAlive));
      server = await serve();
      await checkRestarted(server.url, completed, accepted, `killed ${pause_ms} ms into the writing`);
    }
  });

  const day_ms = 86_400_000;

  test("a clock that jumps changes what has expired, and nothing else", async () => {
    await stopLast();
    const server = await serve(["--grace", "20s"], { hasShiftedClock: true, isDetached: true });
    const { url } = server;
    const draw = async () => (await respond(url, smallRequest())).json();
    const age = async ({ output }: { output: { content: { image_url: string }[] }[] }) => {
      const answer = await fetch(output[0]?.content[1]?.image_url as string);
      await answer.arrayBuffer();
      return answer.status === 200 ? Number(answer.headers.get("cache-control")?.split("max-age=")[1]) : answer.status;
    };
    const past = await draw();
    // A stream and a queue go on through all jumps.
    const stream = respond(url, smallRequest({ num_images: 10 }, { stream: true })).then((answer) => answer.text());
    const queued = await background(url);
    await server.shiftClock(3 * day_ms);
    expect([await age(past), (await resource(url, past.id)).error.code]).toEqual([404, "response_not_found"]);
    const future = await draw();
    expect(Math.abs(future.created_at - past.created_at - 3 * 86_400)).toBeLessThan(60);
    expect(await age(future)).toBeGreaterThan(86_400 - 60);
    await server.shiftClock(-3 * day_ms);
    expect(await age(future)).toBe(86_400);
    const old = await draw();
    expect(Math.abs(old.created_at - past.created_at + 3 * 86_400)).toBeLessThan(60);
    expect(old.usage.image_generation_details.timings_ms.queue).toBeLessThan(60_000);
    expect(parseEvents(await stream).at(-1)?.type).toBe("response.completed");
    expect(await resource(url, queued.body.id)).toMatchObject({ status: "completed" });
    await server.shiftClock(0);
    expect(await age(old)).toBe(404);
    expect((await draw()).status).toBe("completed");
    expect([await statusOf(url, "/healthz"), await statusOf(url, "/readyz")]).toEqual([200, 200]);
    storedFiles(dataDir);

    // Ctrl-C in a terminal reaches the whole group, and yet what runs is finished.
    const running = respond(url, smallRequest({ num_images: 4 }));
    await untilJobs(url, { queued: 0, running: 1 });
    process.kill(-(server.child.pid as number), "SIGINT");
    expect((await running).status).toBe(200);
    expect(await server.ended).toBe(0);
  });

  test("a second SIGTERM ends at once, and a log that cannot be written disturbs nobody", async () => {
    const hasFullDevice = existsSync("/dev/full");
    const log = openSync(hasFullDevice ? "/dev/full" : "/dev/null", "w");
    const server = await serve(["--grace", "60s"], { stderr: log });
    closeSync(log);
    const { url, child } = server;
    for (let i = 0; i < 3; i++) expect((await respond(url, smallRequest())).status).toBe(200);
    const running = respond(url, smallRequest(longImage)).catch(() => undefined);
    await untilJobs(url, { queued: 0, running: 1 });
    const engine = childrenOf(child.pid as number);
    child.kill("SIGTERM");
    child.kill("SIGTERM"); // what comes at once is the same wish, handed on twice
    await sleep(1500); // either would have ended it by then
    expect(child.exitCode).toBeNull();
    child.kill("SIGTERM");
    // Status 0 if it had waited for the job.
    expect(await server.ended).toBe(143);
    await running;
    await until(() => !engine.some(isAlive));
    storedFiles(dataDir);
  });

  async function stopLast(): Promise<void> {
    const last = servers.at(-1);
    last?.child.kill("SIGTERM");
    expect(await last?.ended).toBe(0);
  }

  async function checkRestarted(
    url: string,
    completed: { id: string; output: unknown }[],
    accepted: string[],
    when: string,
  ): Promise<void> {
    const files = storedFiles(dataDir);
    const images = files.filter(({ kind }) => kind === "img");
    expect(images.length, when).toBeGreaterThan(0);
    const contents = await Promise.all(images.map((file) => fetched(url, file)));
    expect(contents, when).toEqual(images.map(({ sha256 }) => [200, `"${sha256}"`, sha256]));
    for (const response of completed) expect(await resource(url, response.id), when).toEqual(response);
    expect(accepted.length, when).toBeGreaterThan(0);
    for (const id of accepted) {
      const { status, error } = await resource(url, id);
      if (status === "completed") continue;
      expect([status, error.code], when).toEqual(["failed", "server_restarted"]);
      expectFailed(await follow(url, id), "server_restarted");
    }
    for (const { id } of files.filter(({ kind }) => kind === "resp")) {
      expect((await resource(url, id)).id, when).toBe(id);
    }
    const previous = completed.at(-1) as { id: string };
    const next = await respond(url, { ...smallRequest(), previous_response_id: previous.id });
    expect(next.status, when).toBe(200);
  }

  /** The status, the validator, and the hash of what came. */
  async function fetched(url: string, { id }: StoredFile) {
    const answer = await fetch(`${url}/v1/images/${id}/content`);
    const hash = createHash("sha256").update(Buffer.from(await answer.arrayBuffer()));
    return [answer.status, answer.headers.get("etag"), hash.digest("hex")];
  }
});
