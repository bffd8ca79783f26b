// Pictures that take long to decode cost nobody but their sender: they are decoded in their key's turn, not at all once
// the sender has left, and finished pictures of others do not wait for it.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildProgram } from "../cli/program.js";
import { clocked } from "../clocked.js";
import { blackPng } from "../media/synthetic.js";
import { listeners, openServer, parseEvents, postJson, smallRequest, type TestServer } from "./running.js";

// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;
const dataUri = (png: Uint8Array) => `data:image/png;base64,${Buffer.from(png).toString("base64")}`;
const large = dataUri(blackPng());
const damaged = dataUri(blackPng({ side: 512, isDamaged: true }));
const withImages = (urls: string[], body = {}) => ({
  ...smallRequest({}, body),
  input: [
    {
      role: "user",
      content: [{ type: "input_text", text: "a" }, ...urls.map((image_url) => ({ type: "input_image", image_url }))],
    },
  ],
});
const copies = (count: number, url = large) => Array.from({ length: count }, () => url);

let folder: string;
beforeAll(async () => {
  await buildProgram();
  folder = mkdtempSync(join(tmpdir(), "daybreak-decoding-"));
  writeFileSync(join(folder, "keys"), "greedy-key-0001\nmodest-key-0002\n");
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(listeners)("%s", (listener) => {
  let server: TestServer;
  let url: string;
  beforeAll(async () => {
    server = await openServer({ listener, apiKeyFile: join(folder, "keys") });
    url = `${server.url}/v1/responses`;
    await (await modest()).json(); // kernels are compiled
  });
  afterAll(() => server.end());

  const greedy = (body: unknown, signal?: AbortSignal) =>
    postJson(url, body, { signal: signal ?? null, headers: { authorization: "Bearer greedy-key-0001" } });
  const modest = () =>
    postJson(url, smallRequest({ width: 256, height: 256, steps: 4 }), {
      headers: { authorization: "Bearer modest-key-0002" },
    });
  const timed = async () => {
    const began = performance.now();
    expect((await modest()).status).toBe(200);
    return performance.now() - began;
  };
  const idle = () =>
    expect
      .poll(
        async () => {
          const headers = { authorization: "Bearer modest-key-0002" };
          const metrics = await (await fetch(`${server.url}/metrics`, { headers })).text();
          return (
            /daybreak_jobs\{state="running"\} 0/.test(metrics) && /daybreak_jobs\{state="queued"\} 0/.test(metrics)
          );
        },
        { timeout: 60_000 },
      )
      .toBe(true);

  test("more pixels than a request may have are refused by their headers, at once", clocked, async () => {
    const began = performance.now();
    const response = await greedy(withImages(copies(8)));
    expect([response.status, ((await response.json()) as Value).error]).toMatchObject([
      400,
      { code: "reference_too_many_pixels", param: "input[0].content[3].image_url" },
    ]);
    expect(performance.now() - began).toBeLessThan(1000);
  });

  test("another key's picture takes no more than twice as long beside six requests whose sender has left", async () => {
    // Other tests have the processor now and then, so each round measures both, and one round in which they had it evenly
    // tells. Behind the decoding it would be 20 times as long in every round.
    let [alone, beside] = [0, Number.POSITIVE_INFINITY];
    for (let i = 0; i < 6 && beside > 2 * alone; i++) {
      alone = await timed();
      const leave = new AbortController();
      const left = Array.from({ length: 6 }, () => greedy(withImages(copies(2)), leave.signal).catch(() => undefined));
      await sleep(400); // all have arrived, the first is being decoded
      leave.abort();
      beside = await timed();
      await Promise.all(left);
    }
    process.stdout.write(
      `${listener}: a picture alone ${alone.toFixed(0)} ms, beside abandoned decoding ${beside.toFixed(0)} ms\n`,
    );
    expect(beside).toBeLessThanOrEqual(2 * alone);
    await idle();
  });

  test("decoding keeps neither health checks waiting nor, beyond one request, another key", clocked, async () => {
    // Decoded to the last row, and then not drawn.
    const long = dataUri(blackPng({ isDamaged: true }));
    const staying = Array.from({ length: 2 }, () => greedy(withImages([long])));
    await sleep(200);
    const order: string[] = [];
    const [, waits] = await Promise.all([
      modest().then(() => order.push("modest")),
      (async () => {
        const delays: number[] = [];
        for (let i = 0; i < 10; i++) {
          const began = performance.now();
          await fetch(`${server.url}/healthz`);
          delays.push(performance.now() - began);
          await sleep(20);
        }
        return delays;
      })(),
      ...staying.map((answer) => answer.then(() => order.push("greedy"))),
    ]);
    expect(order.indexOf("modest")).toBeLessThanOrEqual(1);
    // On two cores, one of which decodes and one draws, and which other tests share.
    expect(Math.max(...waits)).toBeLessThan(1000);
  });

  test("what only decoding finds ends the response with the code and the member at fault", async () => {
    const body = withImages([damaged]);
    const response = await greedy(body);
    const expected = { type: "invalid_request", code: "reference_damaged", param: "input[0].content[1].image_url" };
    expect([response.status, ((await response.json()) as Value).error]).toMatchObject([400, expected]);
    const events = parseEvents(await (await greedy({ ...body, stream: true })).text());
    expect(events.at(-2)).toMatchObject({ type: "error", error: expected });
    expect(events.at(-1)).toMatchObject({ type: "response.failed" });
    const edit = await postJson(
      `${server.url}/v1/images/edits`,
      { prompt: "a", size: "128x128", images: [{ image_url: damaged }] },
      { headers: { authorization: "Bearer greedy-key-0001" } },
    );
    expect([edit.status, ((await edit.json()) as Value).error.code]).toEqual([400, "reference_damaged"]);
  });

  test("a sideways photo draws an upright picture", async () => {
    const raw = { width: 192, height: 128, channels: 3 } as const;
    const photo = sharp(Buffer.alloc(192 * 128 * 3, 90), { raw }).withMetadata({ orientation: 6 });
    const data = (await photo.jpeg().toBuffer()).toString("base64");
    const { input } = withImages([`data:image/jpeg;base64,${data}`]);
    const response = await greedy({ input, provider_options: { image: { steps: 1 } } });
    const { output, usage } = (await response.json()) as Value;
    expect(output[0].content[1]).toMatchObject({ width: 128, height: 192 });
    expect(usage.image_generation_details).toMatchObject({ width: 128, height: 192 });
  });
});
