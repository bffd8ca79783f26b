// What other people's clients send, recorded, and what they read of the answers; forms, which are where clients differ,
// on both listeners. Each shape says where it is from: the client's source, as of 2026, with the headers that a server
// could stumble over. Clients that are packages of this repository run as they are in openai-client.gpu.test.ts.

import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { decodePng } from "../../src/media/png.js";
import type { StartOptions } from "../../src/server/server.js";
import { listeners, openServer, type TestServer } from "./running.js";

const circle = readFileSync(fileURLToPath(new URL("../golden/ref-circle.png", import.meta.url)));
// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;

type Part = { name: string; value: string | Buffer; fileName?: string; type?: string };

type Answered = { status: number; value: Value };

/** Sends exactly these headers and bytes, on a connection of their own: `fetch` would add headers. */
function sender({ url }: TestServer) {
  return (method: string, path: string, headers: Record<string, string>, body?: string | Buffer) =>
    new Promise<Answered>((resolve, reject) => {
      const outgoing = httpRequest(`${url}${path}`, { method, headers, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          resolve({ status: response.statusCode ?? 0, value: text === "" ? undefined : JSON.parse(text) });
        });
      });
      outgoing.on("error", reject);
      outgoing.end(body);
    });
}

async function sized(base64: string): Promise<string> {
  const { width, height } = await decodePng(Buffer.from(base64, "base64"));
  return `${width}x${height}`;
}

/** As README has it for Open WebUI, LibreChat and the AI SDK. */
const served: Partial<StartOptions> = {
  ...{ modelAliases: ["gpt-image-1", "dall-e-2", "dall-e-3"], outputItem: "openai" },
  defaultSize: { width: 128, height: 128 },
};

describe("bodies in JSON", () => {
  let server: TestServer;
  let send: ReturnType<typeof sender>;

  beforeAll(async () => {
    server = await openServer(served);
    send = sender(server);
  });
  afterAll(() => server.end());

  const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    send("POST", path, { "content-type": "application/json", ...headers }, JSON.stringify(body));

  describe("Open WebUI (backend/open_webui/routers/images.py, aiohttp)", () => {
    const headers = {
      accept: "*/*",
      "accept-encoding": "gzip, deflate, br",
      "user-agent": "Python/3.11 aiohttp/3.13.2",
    };

    test("OpenAI engine: an image", async () => {
      const body = { model: "dall-e-2", prompt: "a red circle", n: 1, size: "128x128", response_format: "b64_json" };
      const { status, value } = await post("/v1/images/generations", body, {
        ...headers,
        authorization: "Bearer sk-unused",
      });
      expect(status).toBe(200);
      expect(await sized(value.data[0].b64_json)).toBe("128x128");
      // With the parameters of IMAGES_OPENAI_API_PARAMS, which a user types freely.
      const typed = { ...body, seed: 7, steps: 1, cfg: 3 };
      const again = await post("/v1/images/generations", typed, headers);
      expect(again.value.data[0].seed).toBe(7);
      expect(again.value.warnings).toEqual(['"cfg" is not known here and was ignored: guidance_scale says that']);
    });

    test("AUTOMATIC1111 engine: set up, an image", async () => {
      // No AUTOMATIC1111_API_AUTH is set: the header is there and empty.
      const basic = { ...headers, authorization: "" };
      const options = await send("GET", "/sdapi/v1/options", basic);
      expect(options).toMatchObject({ status: 200, value: { sd_model_checkpoint: server.modelName } });
      const models = await send("GET", "/sdapi/v1/sd-models", basic);
      expect(models.value[0]).toMatchObject({ title: server.modelName, model_name: server.modelName });
      const set = await post("/sdapi/v1/options", { ...options.value, sd_model_checkpoint: "gpt-image-1" }, basic);
      expect(set).toEqual({ status: 200, value: {} });
      const body = {
        prompt: "a red circle",
        batch_size: 2,
        width: 128,
        height: 144,
        steps: 50,
        negative_prompt: "blue",
      };
      const { status, value } = await post("/sdapi/v1/txt2img", body, basic);
      expect(status).toBe(200);
      expect(value.images).toHaveLength(2);
      expect(await sized(value.images[1])).toBe("128x144");
      expect(typeof value.info).toBe("string");
      expect(value.warnings[0]).toMatch(/^4 steps were made instead of 50/);
    });
  });

  describe("SillyTavern (src/endpoints/stable-diffusion.js, node-fetch)", () => {
    const basic = {
      accept: "*/*",
      authorization: `Basic ${Buffer.from(":").toString("base64")}`,
      "user-agent": "node-fetch",
      connection: "close",
    };

    test("set up, an image, the model", async () => {
      expect((await send("GET", "/sdapi/v1/options", basic)).status).toBe(200);
      const samplers = await send("GET", "/sdapi/v1/samplers", basic);
      expect(samplers.value.map(({ name }: Value) => name)).toEqual(["Euler"]);
      expect((await post("/sdapi/v1/options", { sd_model_checkpoint: server.modelName }, basic)).status).toBe(200);
      const progress = await send("GET", "/sdapi/v1/progress", basic);
      expect(progress.value).toMatchObject({ progress: 0, state: { job_count: 0 } });
      const body = {
        ...{ url: "http://127.0.0.1:8080", auth: "", prompt: "a red circle", negative_prompt: "worst quality" },
        ...{ sampler_name: "Euler", scheduler: "Automatic", steps: 20, cfg_scale: 7, width: 256, height: 256 },
        ...{ restore_faces: false, enable_hr: false, hr_upscaler: "Latent", hr_scale: 1, hr_additional_modules: [] },
        ...{ denoising_strength: 0.7, hr_second_pass_steps: 0, seed: 7, clip_skip: 1 },
        override_settings: { CLIP_stop_at_last_layers: 1 },
        override_settings_restore_afterwards: true,
        ...{ save_images: true, send_images: true, do_not_save_grid: false, do_not_save_samples: false },
      };
      const drawing = post("/sdapi/v1/txt2img", body, basic);
      let seen: Value;
      await expect
        .poll(
          async () => {
            seen = (await send("GET", "/sdapi/v1/progress", basic)).value;
            return seen.progress;
          },
          { interval: 5, timeout: 20_000 },
        )
        .toBeGreaterThan(0);
      expect(seen.state).toMatchObject({ job: "scripts_txt2img", job_count: 1, job_no: 0, sampling_steps: 4 });
      const { status, value } = await drawing;
      expect(status, JSON.stringify(value)).toBe(200);
      expect(await sized(value.images[0])).toBe("256x256");
      expect(value.parameters).toMatchObject({ seed: 7, steps: 4, sampler_name: "Euler" });
      expect(value.warnings).toEqual([
        '"clip_skip" is not known here and was ignored',
        '"override_settings.CLIP_stop_at_last_layers" is not known here and was ignored',
        expect.stringMatching(/^4 steps were made instead of 20: this model takes at most 8$/),
        expect.stringMatching(/^guidance and negative prompt are ignored/),
      ]);
      expect((await send("GET", "/sdapi/v1/progress", basic)).value.state.job_count).toBe(0);
    });
  });

  describe("LibreChat", () => {
    test("OpenAIImageTools.js: an image, by the openai package of its own", async () => {
      const body = {
        ...{ model: "gpt-image-1", prompt: "a red circle", n: 1, background: "auto", output_format: "png" },
        ...{ quality: "auto", size: "auto" },
      };
      const { value } = await post("/v1/images/generations", body, { authorization: "Bearer unused" });
      expect(await sized(value.data[0].b64_json)).toBe("128x128");
      expect(value.warnings).toBeUndefined();
    });

    test("StableDiffusion.js", async () => {
      const body = {
        prompt: "a red circle",
        negative_prompt: "cgi",
        cfg_scale: 4.5,
        steps: 22,
        width: 256,
        height: 256,
      };
      const { value } = await post("/sdapi/v1/txt2img", body);
      const info = JSON.parse(value.info);
      expect(info).toMatchObject({ width: 256, height: 256 });
      expect(Number.isSafeInteger(info.seed)).toBe(true);
      expect(info.infotexts[0].split("\n").pop()).toMatch(/^Steps: 4, .*Size: 256x256/);
    });
  });

  describe("LiteLLM (litellm/llms/openai, the Python SDK underneath)", () => {
    const headers = {
      ...{ accept: "application/json", "user-agent": "OpenAI/Python 2.8.0", authorization: "Bearer unused" },
      ...{ "x-stainless-lang": "python", "x-stainless-retry-count": "0", "x-stainless-raw-response": "true" },
    };

    test("image_generation, with and without what its proxy adds", async () => {
      const body = { prompt: "a red circle", model: "dall-e-3", n: 1, size: "128x128", quality: "standard", user: "u" };
      const { value } = await post("/v1/images/generations", body, headers);
      // convert_to_model_response_object reads these.
      expect(value).toMatchObject({ created: expect.any(Number), data: [{ b64_json: expect.any(String) }] });
      expect(value.usage.input_tokens_details).toMatchObject({ image_tokens: 0, text_tokens: expect.any(Number) });
      const asUrl = await post("/v1/images/generations", { ...body, response_format: "url" }, headers);
      expect(asUrl.value.data[0].url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/v1\/images\/img_/);
    });
  });

  describe("Vercel AI SDK (@ai-sdk/openai)", () => {
    /** What openai-responses-api.ts wants of a response, as far as a drawing can be of it. */
    const response = z.object({
      ...{ id: z.string(), created_at: z.number(), model: z.string() },
      error: z.object({ code: z.string(), message: z.string() }).nullish(),
      output: z.array(
        z.discriminatedUnion("type", [
          z.object({
            ...{ type: z.literal("message"), role: z.literal("assistant"), id: z.string() },
            content: z.array(
              z.object({ type: z.literal("output_text"), text: z.string(), annotations: z.array(z.unknown()) }),
            ),
          }),
          z.object({ type: z.literal("image_generation_call"), id: z.string(), result: z.string() }),
        ]),
      ),
      incomplete_details: z.object({ reason: z.string() }).nullish(),
      usage: z.object({ input_tokens: z.number(), output_tokens: z.number() }),
    });

    /** As ai 6.0.326 with @ai-sdk/openai 3.0.141 sends it on Node 20. */
    const headers = {
      ...{ authorization: "Bearer unused", accept: "*/*", "accept-language": "*", "sec-fetch-mode": "cors" },
      "user-agent": "ai/6.0.326 ai-sdk/provider-utils/4.0.66 runtime/node.js/v20.20.2",
      "accept-encoding": "gzip, deflate",
    };
    const content = [{ type: "input_text", text: "a red circle" }];
    const text = { model: "gpt-image-1", input: [{ role: "user", content }] };

    test("generateText, which knows no pictures in messages", async () => {
      const { value } = await post("/v1/responses", text, headers);
      const [item] = response.parse(value).output;
      expect(item?.type === "image_generation_call" && (await sized(item.result))).toBe("128x128");
      // As the same server answers those who can read it.
      const { value: plain } = await post("/v1/responses", { ...text, output_item: "message" }, headers);
      expect(response.safeParse(plain).success).toBe(false);
    });

    test("generateText with its tool, and with an image", async () => {
      const tools = [{ type: "image_generation", quality: "low", size: "128x128" }];
      const drawn = await post("/v1/responses", { ...text, tools, tool_choice: "auto" }, headers);
      expect(response.parse(drawn.value).output).toHaveLength(1);
      const image_url = `data:image/png;base64,${circle.toString("base64")}`;
      const parts = [
        { type: "input_text", text: "make it blue" },
        { type: "input_image", image_url },
      ];
      const input = [
        { role: "system", content: "flat shapes" },
        { role: "user", content: parts },
      ];
      const edited = await post("/v1/responses", { ...text, input }, headers);
      expect(response.parse(edited.value).output).toHaveLength(1);
      expect(edited.value.warnings).toBeUndefined();
    });

    const images = z.object({
      data: z.array(z.object({ b64_json: z.string(), revised_prompt: z.string().nullish() })),
    });

    test("generateImage", async () => {
      const body = { model: "gpt-image-1", prompt: "a red circle", n: 2, size: "128x128" };
      expect(images.parse((await post("/v1/images/generations", body, headers)).value).data).toHaveLength(2);
      const other = { model: "dall-e-3", prompt: "a red circle", n: 1, response_format: "b64_json" };
      expect(images.parse((await post("/v1/images/generations", other, headers)).value).data).toHaveLength(1);
    });
  });

  describe("OpenAI's Java SDK (openai-java, core/http/HttpRequestBodies.kt)", () => {
    const headers = {
      ...{ accept: "application/json", "user-agent": "OpenAIClientImpl/Java 4.8.0", authorization: "Bearer unused" },
      ...{ "x-stainless-lang": "java", "x-stainless-runtime": "JRE", "x-stainless-kotlin-version": "1.8.0" },
    };

    test("images().generate", async () => {
      const body = { prompt: "a red circle", model: "gpt-image-1", n: 1, size: "128x128" };
      const { value } = await post("/v1/images/generations", body, headers);
      expect(await sized(value.data[0].b64_json)).toBe("128x128");
    });
  });

  describe("OpenAI's .NET SDK (openai-dotnet, src/Custom/Images/ImageClient.cs)", () => {
    test("GenerateImage", async () => {
      const body = { prompt: "a red circle", model: "gpt-image-1", n: 1, size: "128x128" };
      const { value } = await post("/v1/images/generations", body, {
        ...{
          accept: "application/json",
          "user-agent": "OpenAI/2.7.0 (.NET 9.0.0; Linux)",
          authorization: "Bearer unused",
        },
        "content-type": "application/json",
      });
      expect(await sized(value.data[0].b64_json)).toBe("128x128");
    });
  });
});

describe.each(listeners)("forms on %s", (listener) => {
  let server: TestServer;
  let send: ReturnType<typeof sender>;

  beforeAll(async () => {
    server = await openServer({ ...served, listener });
    send = sender(server);
  });
  afterAll(() => server.end());

  test("Open WebUI: an edit, by aiohttp", async () => {
    const boundary = "6d0b2cbd1a5f4f0ea1ab4b0e3c3e9d52";
    // aiohttp writes a part's type before its name.
    const parts: Part[] = [
      ...Object.entries({ model: "gpt-image-1", prompt: "make it blue", size: "128x128" }).map(([name, value]) => ({
        ...{ name, value, type: "text/plain; charset=utf-8" },
      })),
      { name: "image", value: circle, fileName: "5c0f9c36.png", type: "image/png" },
    ];
    const { status, value } = await send(
      "POST",
      "/v1/images/edits?api-version=2025-04-01-preview",
      { "content-type": `multipart/form-data; boundary=${boundary}` },
      form(boundary, parts, "type first"),
    );
    expect(status, JSON.stringify(value)).toBe(200);
    expect(await sized(value.data[0].b64_json)).toBe("128x128");
  });

  test("LibreChat: an edit, by form-data and axios", async () => {
    const boundary = "--------------------------515890814546601021194782";
    const parts: Part[] = [
      ...Object.entries({ model: "gpt-image-1", prompt: "make it blue", quality: "auto", size: "auto" }).map(
        ([name, value]) => ({ name, value }),
      ),
      ...[1, 2].map((i) => ({ name: "image[]", value: circle, fileName: `${i}.png`, type: "image/png" })),
    ];
    const { status, value } = await send(
      "POST",
      "/v1/images/edits",
      {
        accept: "application/json, text/plain, */*",
        "content-type": `multipart/form-data; boundary=${boundary}`,
        "user-agent": "axios/1.12.1",
        "accept-encoding": "gzip, compress, deflate, br",
      },
      form(boundary, parts),
    );
    expect(status, JSON.stringify(value)).toBe(200);
    expect(value.data[0].b64_json).toMatch(/^iVBOR/);
    expect(value.warnings).toBeUndefined();
  });

  test("Vercel AI SDK: generateImage of an image, by undici", async () => {
    const boundary = "----formdata-undici-007860588397";
    const parts: Part[] = [
      { name: "model", value: "gpt-image-1" },
      { name: "prompt", value: "make it blue" },
      { name: "image", value: circle, fileName: "blob", type: "image/png" },
      { name: "n", value: "1" },
      { name: "size", value: "128x128" },
    ];
    const type = { "content-type": `multipart/form-data; boundary=${boundary}` };
    const { value } = await send("POST", "/v1/images/edits", type, form(boundary, parts));
    expect(await sized(value.data[0].b64_json)).toBe("128x128");
  });

  test("OpenAI's Java SDK: images().edit", async () => {
    const boundary = "0f4a7d8e-2f0b-4a53-8ce3-5d5d1b2c8a11";
    const text = { type: "text/plain; charset=utf-8" };
    const parts: Part[] = [
      { name: "image[]", value: circle, fileName: "circle.png", type: "application/octet-stream" },
      { name: "prompt", value: "make it blue", ...text },
      { name: "model", value: "gpt-image-1", ...text },
      { name: "n", value: "1", ...text },
      { name: "size", value: "128x128", ...text },
    ];
    const { status, value } = await send(
      "POST",
      "/v1/images/edits",
      { "content-type": `multipart/form-data; boundary=${boundary}` },
      form(boundary, parts),
    );
    expect(status, JSON.stringify(value)).toBe(200);
    expect(await sized(value.data[0].b64_json)).toBe("128x128");
  });

  test("OpenAI's .NET SDK: GenerateImageEdit, by System.Net.Http's MultipartFormDataContent", async () => {
    const boundary = "=_k1Tn7zq=4Zk0";
    const text = "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name";
    const chunks = [
      `--${boundary}\r\nContent-Disposition: form-data; name=image; filename=circle.png; filename*=utf-8''circle.png\r\n\r\n`,
      circle,
      ...Object.entries({ prompt: "make it blue", model: "gpt-image-1", n: "1", size: "128x128" }).map(
        ([name, value]) => `\r\n--${boundary}\r\n${text}=${name}\r\n\r\n${value}`,
      ),
      `\r\n--${boundary}--\r\n`,
    ];
    const headers = {
      ...{
        accept: "application/json",
        "user-agent": "OpenAI/2.7.0 (.NET 9.0.0; Linux)",
        authorization: "Bearer unused",
      },
      "content-type": `multipart/form-data; boundary="${boundary}"`,
    };
    const body = Buffer.concat(chunks.map((chunk) => Buffer.from(chunk as string)));
    const { status, value } = await send("POST", "/v1/images/edits", headers, body);
    expect(status, JSON.stringify(value)).toBe(200);
    expect(await sized(value.data[0].b64_json)).toBe("128x128");
  });

  test("OpenAI's .NET SDK: GenerateImageVariation", async () => {
    const boundary = '"=_variations"';
    const { status, value } = await send(
      "POST",
      "/v1/images/variations",
      { "content-type": `multipart/form-data; boundary=${boundary}` },
      form("=_variations", [{ name: "image", value: circle, fileName: "circle.png" }]),
    );
    expect(status).toBe(400);
    expect(value.error.code).toBe("variations_not_offered");
    expect(value.error.message).toMatch(/\/v1\/images\/edits/);
  });
});

/** A form with its names in quotes, as most clients write it. */
function form(boundary: string, parts: readonly Part[], order: "name first" | "type first" = "name first"): Buffer {
  const chunks = parts.flatMap(({ name, value, fileName, type }) => {
    const file = fileName === undefined ? "" : `; filename="${fileName}"`;
    const lines = [`Content-Disposition: form-data; name="${name}"${file}`];
    if (type !== undefined) lines.push(`Content-Type: ${type}`);
    if (order === "type first") lines.reverse();
    return [`--${boundary}\r\n${lines.join("\r\n")}\r\n\r\n`, value, "\r\n"];
  });
  return Buffer.concat([...chunks, `--${boundary}--\r\n`].map((chunk) => Buffer.from(chunk as string)));
}
