// Clients that vanish, stall, crawl or flood, on both listeners: their jobs end at the next step, nothing of them stays
// in the queue or in memory, and others are served meanwhile.

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { longestPause } from "./pauses.js";
import { listeners, openServer, parseEvents, postJson, smallImage, smallRequest, type TestServer } from "./running.js";

/** Takes seconds, in many steps. */
const long = { width: 256, height: 256, steps: 8, num_images: 10 };
const maxFrameBytes = 24 * 2 ** 20;

// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;

describe.each(listeners)("%s", (listener) => {
  let server: TestServer;
  let url: string;

  beforeAll(async () => {
    server = await openServer({ listener });
    url = `${server.url}/v1/responses`;
  });
  afterAll(() => server.end());

  const metric = async (name: string) => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    return Number(
      text
        .split("\n")
        .find((line) => line.startsWith(`${name} `))
        ?.slice(name.length + 1),
    );
  };
  const jobs = async () => ({
    running: await metric('daybreak_jobs{state="running"}'),
    queued: await metric('daybreak_jobs{state="queued"}'),
  });
  const until = (running: number, queued: number) =>
    expect.poll(jobs, { timeout: 30_000 }).toEqual({ running, queued });

  const open = async () => {
    const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
    socket.on("error", () => {});
    await once(socket, "connect");
    return socket;
  };
  const send = (socket: Socket, body: unknown, path = "/v1/responses") => {
    const text = JSON.stringify(body);
    const headers = `host: ${new URL(server.url).host}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}`;
    socket.write(`POST ${path} HTTP/1.1\r\n${headers}\r\n\r\n${text}`);
  };
  /** Proves that others are served. */
  const drawSmall = async () => {
    const response = await postJson(url, smallRequest());
    expect([response.status, ((await response.json()) as Value).status]).toEqual([200, "completed"]);
  };

  test("who vanishes within the body leaves nothing", async () => {
    const incomplete = () => server.logged.filter(({ code }) => code === 409);
    for (const head of ["content-length: 1000000", "transfer-encoding: chunked"]) {
      const socket = await open();
      socket.write(
        `POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n${head}\r\n\r\n`,
      );
      socket.write(head.startsWith("content") ? '{"input":' : '3\r\n{"a\r\n');
      await delay(50); // the server waits for the body's rest by then
      await drawSmall();
      socket.destroy();
    }
    await until(0, 0);
    await expect.poll(incomplete, { timeout: 5000 }).toHaveLength(2);
  });

  test.each([
    ["an answer", long, {}],
    ["a stream", long, { stream: true }],
    ["a stream of partial images", { ...long, partial_images: 3, progress: true }, { stream: true }],
  ])("who vanishes while drawing or queued, waiting for %s, leaves nothing", async (_, image, body) => {
    const drawing = await open();
    send(drawing, smallRequest(image, body));
    await until(1, 0);
    const queued = await open();
    send(queued, smallRequest(image, body));
    await until(1, 1);
    queued.destroy();
    await until(1, 0);
    drawing.destroy();
    await until(0, 0);
    await drawSmall();
  });

  test("who vanishes within a stream of the images routes leaves nothing", async () => {
    const socket = await open();
    send(socket, { prompt: "a", size: "256x256", n: 10, stream: true, partial_images: 3 }, "/v1/images/generations");
    await once(socket, "data");
    await until(1, 0);
    socket.destroy();
    await until(0, 0);
  });

  test("a background response goes on without its client", async () => {
    const socket = await open();
    send(socket, smallRequest({ steps: 4 }, { background: true, stream: true }));
    const [head] = (await once(socket, "data")) as [Buffer];
    const [, id] = /"id":"(resp_[0-9a-f]{32})"/.exec(head.toString() || "") ?? [];
    const known = id ?? /"id":"(resp_[0-9a-f]{32})"/.exec(String(await once(socket, "data")))?.[1];
    socket.destroy();
    const status = async () => ((await (await fetch(`${url}/${known}`)).json()) as Value).status;
    await expect.poll(status, { timeout: 10_000 }).toBe("completed");
  });

  test("a crawling reader of large events costs no memory and keeps nobody waiting", async () => {
    const socket = await open();
    socket.pause();
    try {
      const image = {
        width: 256,
        height: 256,
        steps: 4,
        partial_images: 3,
        response_format: "b64_json",
      };
      send(socket, smallRequest(image, { stream: true, store: false }));
      const before = process.memoryUsage().rss;
      let text = "";
      for (let i = 0; i < 6; i++) {
        await delay(500); // so slow is the reader; all events are made meanwhile
        text += socket.read(1) ?? "";
        expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
      }
      await until(0, 0);
      await drawSmall();
      expect((process.memoryUsage().rss - before) / 2 ** 20).toBeLessThan(200);
      // Within the time that a pause may last it is served on, to the end.
      socket.on("data", (data) => {
        text += data;
      });
      socket.resume();
      await expect.poll(() => text.includes("data: [DONE]\n\n"), { timeout: 10_000 }).toBe(true);
      expect(text.match(/^event: daybreak:image\.partial$/gm)).toHaveLength(3);
      expect(text.length).toBeGreaterThan(100_000);
    } finally {
      socket.destroy();
    }
  });

  test("prompts that take long to read block nobody", async () => {
    const prompts = [
      "\u0301\u0316".repeat(30_000),
      " ".repeat(60_000),
      "\n".repeat(60_000),
      `${"\u0301\u0316".repeat(128)}a`.repeat(250),
      "abcdefghij".repeat(6500),
      "猫".repeat(65_000),
    ];
    const [longest] = await longestPause(async () => {
      for (const input of prompts) {
        expect((await postJson(url, { input })).status).toBe(400);
      }
    });
    // Only a clock tells: without the checks some of them block for minutes, with them 200 ms on a quiet machine.
    expect(longest).toBeLessThan(500);
  });

  const part = '--r\r\ncontent-disposition: form-data; name="a"\r\n\r\n\r\n';
  const file = '--r\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n';
  const formType = "multipart/form-data; xboundary=z; boundary=r";
  // Only a clock tells: then it is tried again.
  test.each([
    ["a form of a million parts", "/v1/images/edits", formType, "", part, "invalid_form"],
    ["a form with a large file", "/v1/images/edits", formType, file, "\r\n--", "invalid_form"],
    [
      "JSON with a text of nothing but escapes",
      "/v1/responses",
      "application/json",
      '{"input":"',
      '\\"',
      "invalid_json",
    ],
    ["JSON of nothing but white space", "/v1/responses", "application/json", "{", " ", "body_too_large"],
  ])("%s, of 91 MB, keeps nobody waiting", { retry: 2 }, async (_, path, type, begin, filling, code) => {
    const chunk = Buffer.from(filling.repeat(65_000 / filling.length));
    const chunks = Math.floor(91e6 / chunk.length);
    const socket = await open();
    let answer = "";
    socket.on("data", (data) => {
      answer += data;
    });
    const [pause] = await longestPause(async () => {
      const length = begin.length + chunks * chunk.length;
      socket.write(
        `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: ${type}\r\ncontent-length: ${length}\r\n\r\n`,
      );
      socket.write(begin);
      for (let i = 0; i < chunks; i++) {
        if (!socket.write(chunk)) await once(socket, "drain");
        if (i % 200 === 0) expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
      }
      await expect.poll(() => answer, { timeout: 10_000 }).toContain(`"code":"${code}"`);
    });
    expect(pause).toBeLessThan(50);
    socket.destroy();
  });

  test("a queue that is full says when to come again", async () => {
    const leave = new AbortController();
    const waiting = Array.from({ length: 65 }, () =>
      postJson(url, smallRequest(long), { signal: leave.signal }).catch(() => undefined),
    );
    await until(1, 64);
    for (const body of [smallRequest(), smallRequest({}, { stream: true }), smallRequest({}, { background: true })]) {
      const refused = await postJson(url, body);
      expect(refused.status).toBe(429);
      expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
      expect(((await refused.json()) as Value).error).toMatchObject({ code: "queue_full", type: "too_many_requests" });
    }
    leave.abort();
    await Promise.all(waiting);
    await until(0, 0);
  });

  const socketTo = async () => {
    const socket = new WebSocket(url.replace("http", "ws"));
    const frames: Value[] = [];
    socket.on("message", (data) => frames.push(JSON.parse(String(data))));
    socket.on("error", () => {});
    await once(socket, "open");
    const terminal = () => frames.filter(({ type }) => /^(error|response\.(completed|failed|incomplete))$/.test(type));
    return { socket, frames, terminal };
  };
  const turn = (body: object = {}) => JSON.stringify({ type: "response.create", ...smallRequest(), ...body });

  test("frames that are wrong get one error each, in order", async () => {
    const { socket, frames, terminal } = await socketTo();
    const wrong: [string | Buffer, string, string | null][] = [
      [Buffer.from(turn()), "invalid_frame", null],
      ["not JSON", "invalid_json", null],
      ["[]", "invalid_json", null],
      ["", "invalid_json", null],
      ["{}", "invalid_frame", "type"],
      ['{"type":"response.cancel"}', "invalid_frame", "type"],
      ['{"type":["response.create"]}', "invalid_frame", "type"],
      [turn({ stream: true }), "invalid_value", "stream"],
      [turn({ stream: false }), "invalid_value", "stream"],
      [turn({ stream_options: {} }), "invalid_value", "stream_options"],
      [turn({ background: true }), "invalid_value", "background"],
      [turn({ model: "gpt-9" }), "model_not_found", "model"],
      [turn({ input: "" }), "missing_prompt", "input"],
      [turn({ previous_response_id: "resp_0" }), "previous_response_not_found", "previous_response_id"],
      [turn({ provider_options: { image: { width: 100 } } }), "invalid_value", "provider_options.image.width"],
      [`{"type":"response.create","input":${"[".repeat(1e5)}${"]".repeat(1e5)}}`, "too_many_values", null],
      [turn({ input: "\u0301\u0316".repeat(30_000) }), "request_prompt_invalid", "input"],
    ];
    for (const [frame] of wrong) socket.send(frame);
    socket.send(turn());
    await expect.poll(() => terminal().length, { timeout: 10_000 }).toBe(wrong.length + 1);
    const errors = frames.slice(0, wrong.length);
    expect(errors.map(({ type, error }) => [type, error?.code, error?.param])).toEqual(
      wrong.map(([, code, param]) => ["error", code, param]),
    );
    for (const { status, error } of errors) {
      expect(Object.keys(error)).toEqual(["message", "type", "param", "code"]);
      expect(status).toBe(error.type === "not_found" ? 404 : 400);
    }
    expect(frames.slice(wrong.length).map(({ sequence_number }) => sequence_number)).toEqual(
      frames.slice(wrong.length).map((_, i) => i),
    );
    expect(frames.at(-1).type).toBe("response.completed");
    socket.close();
  });

  test("several turns at once are run one after the other", async () => {
    const { socket, frames, terminal } = await socketTo();
    for (const seed of [1, 2, 3]) socket.send(turn({ seed, metadata: { seed: String(seed) } }));
    await expect.poll(() => terminal().length, { timeout: 10_000 }).toBe(3);
    const order = frames.filter(({ type }) => type === "response.created" || type === "response.completed");
    expect(order.map(({ type, response }) => [type, response.metadata.seed])).toEqual(
      ["1", "2", "3"].flatMap((seed) => [
        ["response.created", seed],
        ["response.completed", seed],
      ]),
    );
    socket.terminate();
  });

  test("a frame that is too large closes its socket with 1009", async () => {
    const { socket } = await socketTo();
    const closed = once(socket, "close");
    socket.send("a".repeat(maxFrameBytes + 1));
    expect((await closed)[0]).toBe(1009);
    const { socket: other, terminal } = await socketTo();
    other.send(JSON.stringify({ type: "response.create", input: "a".repeat(maxFrameBytes - 100) }));
    await expect.poll(() => terminal().length, { timeout: 10_000 }).toBe(1);
    expect(terminal()[0].error).toMatchObject({ param: "input" });
    other.terminate();
  });

  test("who vanishes within a turn leaves nothing, nor the turns that waited", async () => {
    const { socket, frames } = await socketTo();
    for (let i = 0; i < 3; i++) socket.send(turn({ provider_options: { image: long } }));
    await expect.poll(() => frames.length, { timeout: 10_000 }).toBeGreaterThan(0);
    await until(1, 0);
    socket.terminate();
    await until(0, 0);
  });

  test("a flood of turns is refused, and cut off if nobody reads", async () => {
    const { socket, terminal } = await socketTo();
    socket.send(turn({ provider_options: { image: long } }));
    for (let i = 0; i < 40; i++) socket.send("{}");
    await expect.poll(() => terminal().length, { timeout: 10_000 }).toBeGreaterThanOrEqual(9);
    expect(terminal()[0]).toMatchObject({ status: 429, error: { code: "too_many_turns" } });
    socket.terminate();
    await until(0, 0);
  });

  test("after all that the server draws as before", async () => {
    await drawSmall();
    const stream = await postJson(url, smallRequest(smallImage, { stream: true }));
    expect(parseEvents(await stream.text()).at(-1)?.type).toBe("response.completed");
    expect(await jobs()).toEqual({ running: 0, queued: 0 });
    expect(await metric("daybreak_engine_restarts_total")).toBe(0);
    expect(server.logged.filter(({ level }) => (level as number) >= 50)).toEqual([]);
  });
});
