// A server with keys, protected media and an allowed origin: who is let in, and to what; and how keys share it.

import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { clocked } from "../clocked.js";
import { checked } from "./checked.js";
import { listeners, openServer, postJson, smallRequest } from "./running.js";
import { connect } from "./sockets.js";

const keys = ["first-key-0001", "second-key-0002"] as const;

test.each(listeners)("%s: nobody gets in without a key, nor at what is another's", async (listener) => {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-keys-"));
  const apiKeyFile = join(folder, "keys");
  writeFileSync(apiKeyFile, `# keys\n${keys.join("\n")}\n`);
  const corsOrigins = ["https://studio.example"];
  const guarded = await openServer({ listener, apiKeyFile, protectMedia: true, corsOrigins });
  try {
    const call = async (path: string, authorization?: string, init: RequestInit = {}) => {
      const headers = { "content-type": "application/json", ...(authorization !== undefined && { authorization }) };
      return checked(await fetch(`${guarded.url}${path}`, { ...init, headers: { ...headers, ...init.headers } }));
    };
    const [mine, theirs] = keys.map((key) => `Bearer ${key}`);
    const body = JSON.stringify(smallRequest());
    const wrong = [
      undefined,
      "",
      "Bearer",
      "Bearer x",
      "Basic Zmlyc3Q6a2V5",
      keys[0],
      `Bearer ${keys[0]}x`,
      `Bearer ${keys.join(" ")}`,
    ];
    for (const authorization of wrong) {
      const { status, headers, value } = await call("/v1/responses", authorization, { method: "POST", body });
      expect([authorization, status, headers.get("www-authenticate")]).toEqual([authorization, 401, "Bearer"]);
      expect(value.error.message).not.toContain(keys[0]);
      expect((await call("/v1/models", authorization)).status).toBe(401);
    }
    const { value } = await call("/v1/responses", mine, { method: "POST", body });
    const { image_url } = value.output[0].content[1];
    const file = new URL(image_url).pathname;
    const mineRead = await call(file, mine);
    expect([mineRead.status, mineRead.headers.get("cross-origin-resource-policy")]).toEqual([200, "same-origin"]);
    expect((await call(file)).status).toBe(401);
    expect((await call(`/v1/responses/${value.id}`, mine)).status).toBe(200);
    for (const [method, rest] of [
      ["GET", ""],
      ["DELETE", ""],
      ["POST", "/cancel"],
      ["GET", "/input_items"],
    ] as const) {
      expect((await call(`/v1/responses/${value.id}${rest}`, theirs, { method })).status).toBe(404);
    }
    const goOn = JSON.stringify(smallRequest({}, { previous_response_id: value.id }));
    expect((await call("/v1/responses", theirs, { method: "POST", body: goOn })).value.error.code).toBe(
      "previous_response_not_found",
    );
    const sealing = JSON.stringify({ model: guarded.modelName, previous_response_id: value.id });
    const sealed = await call("/v1/responses/compact", mine, { method: "POST", body: sealing });
    const onward = JSON.stringify(
      smallRequest({}, { input: [sealed.value.output[0], { role: "user", content: "a" }] }),
    );
    expect((await call("/v1/responses", theirs, { method: "POST", body: onward })).value.error).toMatchObject({
      code: "invalid_compaction",
      param: "input[0].encrypted_content",
    });
    expect((await call("/v1/responses", mine, { method: "POST", body: onward })).status).toBe(200);

    // Another's file is as one that never was: reading it, deleting it, drawing from it.
    const unknown = file.replace(/[0-9a-f]{32}/, "0".repeat(32));
    const drawing = (path: string) =>
      JSON.stringify(
        smallRequest(
          {},
          {
            input: [
              {
                role: "user",
                content: [
                  { type: "input_text", text: "a" },
                  { type: "input_image", image_url: guarded.url + path },
                ],
              },
            ],
          },
        ),
      );
    for (const [method, path, body] of [
      ["GET", file],
      ["HEAD", file],
      ["DELETE", file.replace("/content", "")],
      ["POST", "/v1/responses", drawing(file)],
    ] as const) {
      const foreign = await call(path, theirs, { method, body });
      const never = await call(path.replace(file.split("/")[3] as string, unknown.split("/")[3] as string), theirs, {
        method,
        body: body && drawing(unknown),
      });
      expect([method, foreign.status]).toEqual([method, 404]);
      const told = ({ status, value: answer }: typeof foreign) => [status, answer?.error.code, answer?.error.type];
      expect(told(foreign)).toEqual(told(never));
      if (method !== "POST") expect(foreign.text).toBe(never.text);
    }
    expect((await call("/v1/responses", mine, { method: "POST", body: drawing(file) })).status).toBe(200);
    expect((await call(file, mine)).status).toBe(200);

    const item = JSON.stringify({ input: [{ id: value.output[0].id }, { role: "user", content: "a" }] });
    expect((await call("/v1/responses", theirs, { method: "POST", body: item })).value.error.code).toBe(
      "item_not_found",
    );
    for (const path of ["/readyz", "/metrics", "/version", "/openapi.json", "/v1/models"]) {
      expect((await call(path)).status, path).toBe(401);
      expect((await call(path, mine)).status, path).toBe(200);
    }
    for (const path of ["/healthz", "/"]) expect((await call(path)).status, path).toBe(200);

    const origin = (name: string) => ({ headers: { origin: name } });
    const known = await call("/healthz", undefined, origin("https://studio.example"));
    expect(known.headers.get("access-control-allow-origin")).toBe("https://studio.example");
    const refused = await call("/v1/models", undefined, origin("https://studio.example"));
    expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([
      401,
      "https://studio.example",
    ]);
    for (const name of ["https://evil.example", "null", "https://studio.example.evil"]) {
      expect((await call("/healthz", undefined, origin(name))).headers.get("access-control-allow-origin")).toBeNull();
    }
    const asked = "authorization,content-type,x-stainless-lang";
    const preflight = await call("/v1/responses", undefined, {
      method: "OPTIONS",
      headers: { origin: "https://studio.example", "access-control-request-headers": asked },
    });
    expect([preflight.status, preflight.headers.get("access-control-allow-methods")]).toEqual([
      204,
      "GET, HEAD, POST, DELETE",
    ]);
    expect(preflight.headers.get("access-control-allow-headers")).toBe(asked);
    const other = await call("/v1/responses", undefined, { method: "OPTIONS", ...origin("https://evil.example") });
    expect([other.status, other.headers.get("access-control-allow-headers")]).toEqual([405, null]);
  } finally {
    await guarded.end();
    rmSync(folder, { recursive: true });
  }
});

test.each(listeners)("%s: keys are read again, and nothing else ends", async (listener) => {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-keys-"));
  const apiKeyFile = join(folder, "keys");
  writeFileSync(apiKeyFile, keys.join("\n"));
  const guarded = await openServer({ listener, apiKeyFile });
  try {
    const authorized = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });
    const status = async (key: string) => (await fetch(`${guarded.url}/v1/models`, authorized(key))).status;
    const metrics = async () => (await fetch(`${guarded.url}/metrics`, authorized(keys[1]))).text();
    const running = async () => /daybreak_jobs\{state="running"\} (\d+)/.exec(await metrics())?.[1];
    const stays = await connect(guarded.url, authorized(keys[1]).headers);
    const goes = await connect(guarded.url, authorized(keys[0]).headers);
    const drawing = postJson(`${guarded.url}/v1/responses`, smallRequest({ steps: 4 }), authorized(keys[0]));
    await expect.poll(running).toBe("1");
    writeFileSync(apiKeyFile, `${keys[1]}\nthird-key-0003\n`);
    await guarded.reloadKeys();
    expect([await status(keys[0]), await status(keys[1]), await status("third-key-0003")]).toEqual([401, 200, 200]);
    expect((await drawing).status).toBe(200);
    expect((await stays.ask(smallRequest())).at(-1)?.type).toBe("response.completed");
    expect(await goes.ask(smallRequest())).toEqual([
      expect.objectContaining({
        type: "error",
        status: 401,
        error: expect.objectContaining({ code: "invalid_api_key" }),
      }),
    ]);
    // a file that is being written, or is gone, locks nobody out and lets nobody in
    for (const spoil of [() => writeFileSync(apiKeyFile, "\n"), () => rmSync(apiKeyFile)]) {
      spoil();
      await guarded.reloadKeys();
      expect([await status(keys[0]), await status(keys[1])]).toEqual([401, 200]);
    }
    expect(guarded.logged.filter(({ level }) => level === 50).map(({ msg }) => msg)).toEqual(
      Array(2).fill("the keys could not be read again: those that were known stay"),
    );
    stays.close();
    goes.close();
  } finally {
    await guarded.end();
    rmSync(folder, { recursive: true });
  }
});

test("a long video of one key lets another's pictures in between, and is the same for it", clocked, async () => {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-keys-"));
  const apiKeyFile = join(folder, "keys");
  writeFileSync(apiKeyFile, keys.join("\n"));
  const guarded = await openServer({ apiKeyFile });
  try {
    const [mine, theirs] = keys.map((key) => ({ headers: { authorization: `Bearer ${key}` } }));
    const ask = async (options: object) => {
      const body = { input: "a red circle", seed: 3, provider_options: options };
      const began = performance.now();
      const answer = await (await postJson(`${guarded.url}/v1/responses`, body, mine)).json();
      return { answer, ms: performance.now() - began };
    };
    // long enough to be put off, on a processor and on a GPU
    const video = { width: 128, height: 128, steps: 1, num_frames: 16 };
    let alone = await ask({ video });
    while (alone.ms < 2000 && video.num_frames < 241) {
      Object.assign(video, { steps: Math.min(8, 2 * video.steps), num_frames: Math.min(241, 2 * video.num_frames) });
      alone = await ask({ video });
    }
    const shared = ask({ video });
    const began = performance.now();
    expect((await postJson(`${guarded.url}/v1/responses`, smallRequest(), theirs)).status).toBe(200);
    expect(performance.now() - began).toBeLessThan(Math.max(alone.ms * 0.9, 1500));
    const files = [alone.answer, (await shared).answer].map(({ output }) => output[0].content[1]);
    const [whole, parted] = await Promise.all(files.map(({ video_url }) => fileAt(video_url, mine)));
    expect(parted?.length).toBe(whole?.length);
    // the same but for when it was made, which its headers say in seconds, at six places
    const differing = [...(whole as Buffer)].filter((byte, i) => byte !== parted?.[i]);
    expect(differing.length).toBeLessThanOrEqual(6 * 4);
    const { timings_ms } = (await shared).answer.usage.image_generation_details;
    expect(timings_ms.denoise + timings_ms.decode).toBeGreaterThan(0);

    // the same for the pictures of one request
    const images = { width: 128, height: 128, steps: 2, num_images: 3, partial_images: 1 };
    const first = await ask({ image: images });
    const second = ask({ image: images });
    expect((await postJson(`${guarded.url}/v1/responses`, smallRequest(), theirs)).status).toBe(200);
    const [before, after] = [first.answer, (await second).answer].map(({ output }) => output[0].content.slice(1));
    expect(after.map(({ seed }: { seed: number }) => seed)).toEqual(before.map(({ seed }: { seed: number }) => seed));
    for (const [i, { image_url }] of after.entries()) {
      expect(await hashOf(image_url, mine)).toBe(await hashOf(before[i].image_url, mine));
    }
  } finally {
    await guarded.end();
    rmSync(folder, { recursive: true });
  }
});

async function fileAt(url: string, init: RequestInit | undefined): Promise<Buffer> {
  return Buffer.from(await (await fetch(url, init)).arrayBuffer());
}

async function hashOf(url: string, init: RequestInit | undefined): Promise<string> {
  return createHash("sha256")
    .update(await fileAt(url, init))
    .digest("hex");
}
