// Options wherever clients put them: on OpenAI's images routes, on the top level, under other names for the model; and
// requests that come twice. What was honoured shows in the picture: equal files were drawn from equal requests, since a
// file says how it was made.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckpointCopy } from "../cli/checkpoint-copy.js";
import { readPngText } from "../media/png-text.js";
import { listeners, openServer, parseEvents, postJson, smallRequest, type TestServer } from "./running.js";
import { connect } from "./sockets.js";

const circle = readFileSync(fileURLToPath(new URL("../golden/ref-circle.png", import.meta.url)));
// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;

type Answered = { status: number; headers: Headers; text: string; value: Value };

async function ask(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Answered> {
  const response = await postJson(url, body, { headers });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  return { status: response.status, headers: response.headers, text, value: isJson ? JSON.parse(text) : undefined };
}

describe("a server with names and a profile of its own", () => {
  let server: TestServer;

  beforeAll(async () => {
    server = await openServer({
      ...{ modelName: "org/shapes", modelAliases: ["gpt-image-1", "other/name", "org/shapes"], outputItem: "openai" },
      defaultSize: { width: 256, height: 256 },
    });
  });
  afterAll(() => server.end());

  const post = (path: string, body: unknown) => ask(`${server.url}${path}`, body);
  const generate = async (body: object) =>
    (await post("/v1/images/generations", { prompt: "a red circle", ...body })).value;

  test("the images routes honour what /v1/responses honours", async () => {
    const options = { width: 256, height: 128, steps: 2 };
    const image = { ...options, response_format: "b64_json", output_item: "message" };
    const { value } = await post("/v1/responses", { input: "a red circle", seed: 5, provider_options: { image } });
    const [, { image_data: expected }] = value.output[0].content;
    const drawn = await generate({ ...options, seed: 5 });
    expect(drawn).toMatchObject({ size: "256x128", data: [{ seed: 5 }] });
    expect(drawn.data[0].b64_json).toBe(expected);
    expect(drawn.warnings).toBeUndefined();
    const form = new FormData();
    form.append("image", new Blob([circle]), "circle.png");
    for (const [name, text] of Object.entries({ prompt: "blue", ...options, seed: "5", guidance_scale: "2.5" })) {
      form.append(name, String(text));
    }
    const edited: Value = await (await fetch(`${server.url}/v1/images/edits`, { method: "POST", body: form })).json();
    const { parameters = "" } = readPngText(Buffer.from(edited.data[0].b64_json, "base64"));
    expect(parameters).toMatch(/Steps: 2, .*Seed: 5, Size: 256x128,/);
    expect(edited.warnings).toEqual([expect.stringMatching(/guidance and negative prompt are ignored/)]);
  });

  test("shapes, and sides of their own", async () => {
    for (const [body, size] of [
      [{ aspect_ratio: "16:9" }, "336x192"],
      [{ aspect_ratio: "1:2", width: 128 }, "128x256"],
      [{ size: "256x256", width: 128 }, "128x256"],
      [{ size: "auto", aspect_ratio: "auto", height: 128 }, "256x128"],
    ] as const) {
      expect((await generate({ ...body, steps: 1 })).size, JSON.stringify(body)).toBe(size);
    }
    const both = await generate({ aspect_ratio: "16:9", size: "128x128", steps: 1 });
    expect(both).toMatchObject({ size: "128x128", warnings: ["aspect_ratio is ignored: the size is given"] });
  });

  test("what is unknown is told in the body, in streams too", async () => {
    const unknown = { num_inference_steps: 3, sampler: "euler", quality: "high", user: "u", style: null };
    const warnings = [
      '"num_inference_steps" is not known here and was ignored: steps says that',
      '"sampler" is not known here and was ignored',
    ];
    expect((await generate({ ...unknown, size: "128x128", steps: 1 })).warnings).toEqual(warnings);
    const stream = await post("/v1/images/generations", {
      ...{ prompt: "a red circle", ...unknown, size: "128x128", steps: 1, stream: true },
    });
    expect(parseEvents(stream.text).at(-1)?.warnings).toEqual(warnings);
    const asked = smallRequest({}, { width: 512, tools: [{ type: "image_generation", steps: 2 }] });
    const expected = [
      '"width" is not known here and was ignored: provider_options.image.width says that',
      '"tools[0].steps" is not known here and was ignored: provider_options.image.steps says that',
    ];
    expect((await post("/v1/responses", asked)).value.warnings).toEqual(expected);
    const socket = await connect(server.url);
    const frames = await socket.ask(asked);
    expect((frames.at(-1) as Value).response.warnings).toEqual(expected);
    socket.close();
  });

  test("a seed of -1 is one drawn at random, and the answer says which", async () => {
    const seeds = new Set<number>();
    for (let i = 0; i < 2; i++) {
      seeds.add((await generate({ seed: -1, size: "128x128", steps: 1 })).data[0].seed);
      const { value } = await post("/v1/responses", smallRequest({}, { seed: -1 }));
      seeds.add(value.usage.image_generation_details.seeds[0]);
    }
    expect(seeds.size).toBe(4);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
  });

  test("the last seeds that a number can hold are told apart", async () => {
    const last = Number.MAX_SAFE_INTEGER;
    const { data } = await generate({ seed: last - 2, n: 3, size: "128x128", steps: 1 });
    expect(data.map(({ seed }: Value) => seed)).toEqual([last - 2, last - 1, last]);
    const written = data.map(({ b64_json }: Value) => {
      const { parameters = "" } = readPngText(Buffer.from(b64_json, "base64"));
      return /Seed: (\d+)/.exec(parameters)?.[1];
    });
    expect(written).toEqual([last - 2, last - 1, last].map(String));
    expect(new Set(data.map(({ b64_json }: Value) => b64_json)).size).toBe(3);
    const beyond = await generate({ seed: last - 1, n: 3, size: "128x128", steps: 1 });
    expect(beyond.error).toMatchObject({ code: "request_seed_invalid", param: "seed" });
    expect(beyond.error.message).toMatch(/expected at most 9007199254740989$/);
    // The second end of a walk is no picture's seed.
    const video = { width: 128, height: 128, steps: 1, num_frames: 2, output_item: "max" };
    const walk = await post("/v1/responses", { input: "a", seed: last, provider_options: { video } });
    expect(walk.value.usage.image_generation_details.seeds).toEqual([last]);
  });

  test("every name of the model", async () => {
    for (const model of ["org/shapes", "gpt-image-1", "other/name"]) {
      const { value } = await post("/v1/responses", smallRequest({}, { model }));
      expect(value).toMatchObject({ status: "completed", model: "org/shapes" });
      expect((await generate({ model, size: "128x128", steps: 1 })).data).toHaveLength(1);
      for (const path of [model, encodeURIComponent(model)]) {
        expect(await (await fetch(`${server.url}/v1/models/${path}`)).json()).toMatchObject({ id: model });
      }
    }
    const { data } = (await (await fetch(`${server.url}/v1/models`)).json()) as Value;
    expect(data.map(({ id }: Value) => id)).toEqual(["org/shapes", "gpt-image-1", "other/name"]);
    const other = await generate({ model: "dall-e-2" });
    expect(other.error).toMatchObject({ code: "model_not_found", param: "model" });
    expect(other.error.message).toMatch(/currently serving "org\/shapes"/);
  });

  test("the server's output item, and those that come before it", async () => {
    const types = async (body: object, image: object = {}) => {
      const { value } = await post("/v1/responses", smallRequest(image, body));
      return value.output.flatMap((item: Value) => item.content?.map(({ type }: Value) => type) ?? [item.type]);
    };
    const message = ["output_text", "input_image"];
    expect(await types({})).toEqual(["image_generation_call"]);
    expect(await types({ output_item: "message" })).toEqual(message);
    expect(await types({ output_item: "max" })).toEqual(["output_image"]);
    expect(await types({ output_item: "max" }, { output_item: "message" })).toEqual(message);
    expect(await types({ output_item: "message", tools: [{ type: "image_generation" }] })).toEqual(message);
    // That profile has no videos.
    const video = { width: 128, height: 128, steps: 1, num_frames: 2 };
    const { value } = await post("/v1/responses", { input: "a", provider_options: { video } });
    expect(value.output[0].content.map(({ type }: Value) => type)).toEqual(["output_text", "input_video"]);
  });
});

describe.each(listeners)("%s: requests that come again", (listener) => {
  let server: TestServer;

  beforeAll(async () => {
    server = await openServer({ listener });
  });
  afterAll(() => server.end());

  const post = (path: string, body: unknown, headers: Record<string, string>) =>
    ask(`${server.url}${path}`, body, headers);
  const images = async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    return Number(/^daybreak_images_total (\d+)$/m.exec(metrics)?.[1]);
  };

  test("with their key are drawn once, though the first client has left", async () => {
    const before = await images();
    const body = { prompt: "a red circle", width: 256, height: 256, steps: 8 };
    const key = { "idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324" };
    // The first client goes away while its picture is drawn.
    const leaving = new AbortController();
    const init = { headers: { "content-type": "application/json", ...key }, signal: leaving.signal };
    const first = fetch(`${server.url}/v1/images/generations`, { ...init, method: "POST", body: JSON.stringify(body) });
    first.catch(() => undefined);
    const metrics = async () => (await fetch(`${server.url}/metrics`)).text();
    await expect.poll(metrics, { interval: 5, timeout: 20_000 }).toMatch(/jobs\{state="running"\} 1/);
    leaving.abort();
    const [second, third] = await Promise.all([
      post("/v1/images/generations", body, key),
      post("/v1/images/generations", body, key),
    ]);
    expect([second?.status, third?.status]).toEqual([200, 200]);
    expect(third?.text).toBe(second?.text);
    expect(second?.headers.get("idempotent-replayed")).toBe("true");
    expect(await images()).toBe(before + 1);
    const reused = await post("/v1/images/generations", { ...body, steps: 3 }, key);
    expect(reused.value.error).toMatchObject({ code: "idempotency_key_reused", type: "invalid_request" });
    expect(reused.status).toBe(400);
  });

  test("responses, their streams, forms", async () => {
    const before = await images();
    const twice = async (path: string, body: object | (() => FormData), key: string) => {
      const once = async () => {
        if (typeof body !== "function") return post(path, body, { "idempotency-key": key });
        const init = { method: "POST", headers: { "idempotency-key": key }, body: body() };
        return { text: await (await fetch(`${server.url}${path}`, init)).text() };
      };
      const [first, second] = [await once(), await once()];
      expect(second.text).toBe(first.text);
      return first.text;
    };
    const { id } = JSON.parse(await twice("/v1/responses", smallRequest(), "a"));
    expect(id).toMatch(/^resp_/);
    const events = parseEvents(await twice("/v1/responses", smallRequest({}, { stream: true }), "b"));
    expect(events.at(-1)?.type).toBe("response.completed");
    // A client makes a new boundary each time.
    const form = () => {
      const made = new FormData();
      made.append("image", new Blob([circle]), "circle.png");
      for (const [name, text] of Object.entries({ prompt: "blue", size: "128x128", steps: "1" }))
        made.append(name, text);
      return made;
    };
    expect(JSON.parse(await twice("/v1/images/edits", form, "c")).data).toHaveLength(1);
    expect(await images()).toBe(before + 3);
  });
});

test("guidance and negative prompt reach a model that takes them, and any model is served", async () => {
  const folder = mkdtempSync(join(tmpdir(), "daybreak-base-"));
  const base = new CheckpointCopy(folder);
  base.json("model_index.json", (index) => {
    delete index.is_distilled;
  });
  const server = await openServer({ model: folder, anyModel: true });
  try {
    const body = { model: "dall-e-2", prompt: "a red circle", size: "128x128", steps: 1, seed: 3 };
    const negative_prompt = "a blue square";
    const answer = await postJson(`${server.url}/v1/images/generations`, {
      ...body,
      guidance_scale: 2.5,
      negative_prompt,
    });
    const { data, warnings }: Value = await answer.json();
    expect(warnings).toBeUndefined();
    const { parameters } = readPngText(Buffer.from(data[0].b64_json, "base64"));
    expect(parameters).toMatch(/^a red circle\nNegative prompt: a blue square\nSteps: 1, CFG scale: 2.5, Seed: 3, /);
    const txt2img = { prompt: "a red circle", width: 128, height: 128, steps: 20, cfg_scale: 7, seed: 3 };
    const drawn: Value = await (await postJson(`${server.url}/sdapi/v1/txt2img`, { ...txt2img, steps: 1 })).json();
    expect(drawn.parameters).toMatchObject({ cfg_scale: 7, steps: 1, seed: 3 });
    expect(drawn.warnings).toBeUndefined();
  } finally {
    await server.end();
    rmSync(folder, { recursive: true, force: true });
  }
});
