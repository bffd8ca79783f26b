// Every route once, over real sockets on both listeners and through `fetch`, with every answer recorded. In the default
// profile answers and events fit the official document, everything fits the server's own.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodePng } from "../../src/media/png.js";
import { readPngText } from "../media/png-text.js";
import { listeners, openServer, parseEvents, type SseEvent, smallRequest, type TestServer } from "./running.js";
import { OwnDocument, officialErrors, officialEventErrors } from "./schemas.js";

type Recorded = { path: string; method: string; status: number; type: string; value: unknown };

const png = readFileSync(fileURLToPath(new URL("../golden/ref-circle.png", import.meta.url)));

describe.each([...listeners, "fetch"] as const)("%s", (way) => {
  let server: TestServer;
  const recorded: Recorded[] = [];

  beforeAll(async () => {
    server = await openServer({ listener: way === "uws" ? "uws" : "node" });
  });
  afterAll(() => server.end());

  /** Calls a route, by its path in the table, and records what it answers. */
  async function call(
    method: string,
    route: string,
    { id = "", query = "", body }: { id?: string; query?: string; body?: unknown } = {},
  ) {
    const url = `${server.url}${route.replace("{id}", id)}${query}`;
    const isForm = body instanceof FormData;
    const init: RequestInit = {
      method,
      ...(body !== undefined && { body: isForm ? body : JSON.stringify(body) }),
      ...(body !== undefined && !isForm && { headers: { "content-type": "application/json" } }),
    };
    const response = way === "fetch" ? await server.app.fetch(new Request(url, init)) : await fetch(url, init);
    const type = (response.headers.get("content-type") ?? "").split(";")[0] as string;
    const bytes = Buffer.from(await response.arrayBuffer());
    const entry = { path: route, method, status: response.status, type };
    const events = type === "text/event-stream" ? parseEvents(bytes.toString()) : [];
    for (const value of events) recorded.push({ ...entry, value });
    const isJson = type === "application/json";
    const value = isJson ? JSON.parse(bytes.toString()) : undefined;
    if (isJson) recorded.push({ ...entry, value });
    expect(response.headers.get("x-request-id")).toMatch(/^req_[0-9a-f]{32}$/);
    return { status: response.status, headers: response.headers, value, bytes, events };
  }

  test("a response, its parts and its picture", async () => {
    const { value, status } = await call("POST", "/v1/responses", {
      body: smallRequest({}, { metadata: { a: "b" }, temperature: 0.5, user: "ignored" }),
    });
    expect(status).toBe(200);
    expect(value).toMatchObject({ status: "completed", metadata: { a: "b" }, temperature: 0.5, store: true });
    const [text, image] = value.output[0].content;
    expect(text.text).toMatch(/^[\x20-\x7e]+$/);
    const [citation] = text.annotations;
    expect(text.text.slice(citation.start_index, citation.end_index)).toBe(`[${citation.title}](${image.image_url})`);
    expect(image).toMatchObject({ type: "input_image", width: 128, height: 128, seed: 7, format: "png" });
    expect(value.usage).toMatchObject({ output_tokens: 64, image_generation_details: { seeds: [7], steps: 1 } });
    // the chat template and "a red circle"
    expect(value.usage.input_tokens).toBe(20);
    const file = await call("GET", "/v1/images/{id}/content", { id: image.asset_id });
    expect(await decodePng(file.bytes)).toMatchObject({ width: 128, height: 128 });
    expect(readPngText(file.bytes).parameters).toMatch(/^a red circle\nSteps: 1, .*Seed: 7,/);
    // pages that are isolated from others may show it
    expect(file.headers.get("cross-origin-resource-policy")).toBe("cross-origin");
    const head = await call("HEAD", "/v1/images/{id}/content", { id: image.asset_id });
    expect(head.headers.get("content-length")).toBe(String(file.bytes.length));
    expect((await call("DELETE", "/v1/images/{id}", { id: image.asset_id })).value.deleted).toBe(true);
    expect((await call("GET", "/v1/images/{id}/content", { id: image.asset_id })).value.error.code).toBe(
      "media_not_found",
    );
  });

  test("formats and profiles", async () => {
    const inline = await call("POST", "/v1/responses", { body: smallRequest({ response_format: "b64_json" }) });
    const [, part] = inline.value.output[0].content;
    expect(part.image_url).toBeNull();
    expect(await decodePng(Buffer.from(part.image_data, "base64"))).toMatchObject({ width: 128 });
    expect(part).toMatchObject({ asset_id: null, expires_at: null });
    const uri = await call("POST", "/v1/responses", {
      body: smallRequest({ response_format: "data_url", output_format: "JPG" }),
    });
    expect(uri.value.output[0].content[1].image_url).toMatch(/^data:image\/jpeg;base64,\/9j\//);
    const max = await call("POST", "/v1/responses", { body: smallRequest({ output_item: "max", num_images: 2 }) });
    const parts = max.value.output[0].content;
    expect(parts.map((p: object) => Object.keys(p))).toEqual([
      ["type", "image_url", "format"],
      ["type", "image_url", "format"],
    ]);
    const tools = [{ type: "image_generation", size: "128x128", output_format: "webp" }];
    const openai = await call("POST", "/v1/responses", {
      body: { input: "a red circle", tools, tool_choice: "required" },
    });
    expect(openai.value).toMatchObject({
      tools,
      tool_choice: "required",
      output: [{ type: "image_generation_call", status: "completed" }],
    });
    expect(Buffer.from(openai.value.output[0].result, "base64").toString("latin1", 8, 12)).toBe("WEBP");
  });

  test("a stream, and its replay from anywhere", async () => {
    const { events } = await call("POST", "/v1/responses", { body: smallRequest({}, { stream: true }) });
    expect(events.map(({ type }) => type)).toEqual([
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.content_part.added",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, i) => i));
    const { id } = (events[0] as SseEvent & { response: { id: string } }).response;
    const stored = await call("GET", "/v1/responses/{id}", { id });
    expect(stored.value).toEqual((events.at(-1) as SseEvent).response);
    const replay = await call("GET", "/v1/responses/{id}", { id, query: "?stream=true" });
    expect(replay.events).toEqual(events);
    const rest = await call("GET", "/v1/responses/{id}", { id, query: "?stream=true&starting_after=7" });
    expect(rest.events).toEqual(events.slice(8));
    const input = await call("GET", "/v1/responses/{id}/input_items", { id });
    expect(input.value.data).toMatchObject([{ type: "message", role: "user", content: "a red circle" }]);
    expect((await call("DELETE", "/v1/responses/{id}", { id })).value).toEqual({
      id,
      object: "response.deleted",
      deleted: true,
    });
    expect((await call("GET", "/v1/responses/{id}", { id })).status).toBe(404);
  });

  test("progress and partial images, when they are asked for", async () => {
    const body = smallRequest({ steps: 4, progress: true, partial_images: 2, num_images: 2 }, { stream: true });
    const { events } = await call("POST", "/v1/responses", { body });
    const steps = events.filter(({ type }) => type === "daybreak:image.progress");
    expect(steps.map(({ image_index, step }) => [image_index, step])).toEqual(
      [0, 1].flatMap((image) => [1, 2, 3, 4].map((step) => [image, step])),
    );
    const partials = events.filter(({ type }) => type === "daybreak:image.partial");
    expect(partials.map((e) => [e.image_index, e.partial_image_index])).toEqual([
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ]);
    expect(partials[0]?.image_url).toMatch(/^data:image\/png;base64,/);
  });

  test("in the background, with cancel", async () => {
    const { value } = await call("POST", "/v1/responses", { body: smallRequest({}, { background: true }) });
    expect(["queued", "in_progress"]).toContain(value.status);
    const followed = await call("GET", "/v1/responses/{id}", { id: value.id, query: "?stream=true" });
    expect(followed.events.at(-1)?.type).toBe("response.completed");
    const done = await call("POST", "/v1/responses/{id}/cancel", { id: value.id });
    expect(done.value.status).toBe("completed");
    const long = smallRequest({ width: 256, height: 256, steps: 8, num_images: 10 }, { background: true });
    const { value: running } = await call("POST", "/v1/responses", { body: long });
    const cancelled = await call("POST", "/v1/responses/{id}/cancel", { id: running.id });
    expect(cancelled.value).toMatchObject({
      status: "cancelled",
      incomplete_details: { reason: "cancelled" },
      output: [],
    });
    const events = await call("GET", "/v1/responses/{id}", { id: running.id, query: "?stream=true" });
    expect(events.events.at(-1)).toMatchObject({ type: "response.incomplete", response: { status: "cancelled" } });
  });

  test("a conversation goes on from what was drawn", async () => {
    const first = await call("POST", "/v1/responses", { body: smallRequest() });
    const second = await call("POST", "/v1/responses", {
      body: { ...smallRequest(), input: "make it blue", previous_response_id: first.value.id },
    });
    expect(second.value).toMatchObject({ status: "completed", previous_response_id: first.value.id });
    const sentBack = await call("POST", "/v1/responses", {
      body: smallRequest({}, { input: [...first.value.output, { role: "user", content: "make it blue" }] }),
    });
    const file = async ({ value }: { value: typeof second.value }) =>
      (await call("GET", "/v1/images/{id}/content", { id: value.output[0].content[1].asset_id })).bytes;
    const withReference = await file(second);
    expect(await file(sentBack)).toEqual(withReference);
    expect(withReference).not.toEqual(
      await file(await call("POST", "/v1/responses", { body: smallRequest({}, { input: "make it blue" }) })),
    );
    const model = server.modelName;
    const compacted = await call("POST", "/v1/responses/compact", {
      body: { model, previous_response_id: first.value.id },
    });
    const goneOn = await call("POST", "/v1/responses", {
      body: smallRequest({}, { input: [...compacted.value.output, { role: "user", content: "make it blue" }] }),
    });
    expect(await file(goneOn)).toEqual(withReference);
    await call("DELETE", "/v1/images/{id}", { id: first.value.output[0].content[1].asset_id });
    const gone = await call("POST", "/v1/responses", {
      body: { ...smallRequest(), input: "make it blue", previous_response_id: first.value.id },
    });
    expect(gone.status).toBe(404);
    expect(gone.value.error).toMatchObject({ code: "media_not_found", param: "previous_response_id" });
  });

  test("a video", async () => {
    const video = { width: 128, height: 128, steps: 1, num_frames: 5, frames_per_second: 8 };
    const { value, status } = await call("POST", "/v1/responses", {
      body: { input: "a red circle", provider_options: { video } },
    });
    expect(value.error).toBeNull();
    expect(status).toBe(200);
    const part = value.output[0].content[1];
    expect(part).toMatchObject({
      type: "input_video",
      num_frames: 5,
      frames_per_second: 8,
      method: "latent_walk",
      format: "mp4",
    });
    const file = await call("GET", "/v1/videos/{id}/content", { id: part.asset_id });
    expect(file.headers.get("content-type")).toBe("video/mp4");
    expect(file.bytes.toString("latin1", 4, 8)).toBe("ftyp");
    expect((await call("DELETE", "/v1/videos/{id}", { id: part.asset_id })).value.object).toBe("video.deleted");
    const inline = await call("POST", "/v1/responses", {
      body: {
        input: "a red circle",
        provider_options: { video: { ...video, num_frames: 2, response_format: "b64_json" } },
      },
    });
    const data = inline.value.output[0].content[1];
    expect(data.video_url).toBe("");
    expect(Buffer.from(data.video_data, "base64").toString("latin1", 4, 8)).toBe("ftyp");
    const stream = await call("POST", "/v1/responses", {
      body: {
        input: "a red circle",
        stream: true,
        provider_options: { video: { ...video, num_frames: 2, output_item: "max" } },
      },
    });
    expect(stream.events.at(-1)).toMatchObject({
      response: { output: [{ content: [{ type: "output_video", num_frames: 2 }] }] },
    });
  });

  test("OpenAI's images routes", async () => {
    const drawn = await call("POST", "/v1/images/generations", {
      body: { prompt: "a red circle", size: "128x128", steps: 1, n: 2, seed: 7 },
    });
    expect(drawn.value.data.map(({ seed }: { seed: number }) => seed)).toEqual([7, 8]);
    const events = await call("POST", "/v1/images/generations", {
      body: { prompt: "a red circle", size: "128x128", stream: true, partial_images: 2 },
    });
    expect(events.events.map(({ type }) => type)).toEqual([
      "image_generation.partial_image",
      "image_generation.partial_image",
      "image_generation.completed",
    ]);
    const form = new FormData();
    form.append("image", new Blob([png]), "circle.png");
    form.append("prompt", "make it blue");
    form.append("size", "128x128");
    form.append("n", "2");
    form.append("steps", "1");
    form.append("stream", "false");
    const edited = await call("POST", "/v1/images/edits", { body: form });
    expect(edited.value.data).toHaveLength(2);
    expect(edited.value.usage.input_tokens_details.image_tokens).toBeGreaterThan(0);
    // as .NET writes a form: names without quotes, a second name of the file
    const field = (name: string, value: string) =>
      `--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=${name}\r\n\r\n${value}\r\n`;
    const file =
      "Content-Type: image/png\r\nContent-Disposition: form-data; name=image; filename=a.png; filename*=utf-8''a.png";
    const written = [
      `${field("prompt", "a red circle")}${field("size", "128x128")}${field("steps", "1")}--b\r\n${file}\r\n\r\n`,
      png,
      "\r\n--b--\r\n",
    ];
    const headers = { "content-type": 'multipart/form-data; boundary="b"' };
    const init = { method: "POST", headers, body: Buffer.concat(written.map((part) => Buffer.from(part as string))) };
    const url = `${server.url}/v1/images/edits`;
    const dotnet = await (way === "fetch" ? server.app.fetch(new Request(url, init)) : fetch(url, init));
    expect([dotnet.status, ((await dotnet.json()) as { data: unknown[] }).data.length]).toEqual([200, 1]);
    const image_url = `data:image/png;base64,${png.toString("base64")}`;
    const asJson = await call("POST", "/v1/images/edits", {
      body: { prompt: "make it blue", size: "128x128", steps: 1, images: [{ image_url }], response_format: "url" },
    });
    expect(asJson.value.data[0].url).toMatch(/\/v1\/images\/img_[0-9a-f]{32}\/content$/);
    expect((await call("POST", "/v1/images/variations")).value.error.code).toBe("variations_not_offered");
  });

  test("AUTOMATIC1111's routes", async () => {
    const asked = { prompt: "a red circle", width: 128, height: 128, steps: 1, seed: 7 };
    const drawn = await call("POST", "/sdapi/v1/txt2img", { body: { ...asked, batch_size: 2 } });
    const { all_seeds, infotexts } = JSON.parse(drawn.value.info);
    expect(all_seeds).toEqual([7, 8]);
    expect(infotexts[1]).toMatch(/^a red circle\nSteps: 1, .*Seed: 8, Size: 128x128/);
    const pictures = drawn.value.images.map((image: string) => Buffer.from(image, "base64"));
    expect(readPngText(pictures[1]).parameters).toBe(infotexts[1]);
    const same = await call("POST", "/v1/images/generations", { body: { ...asked } });
    expect(drawn.value.images[0]).toBe(same.value.data[0].b64_json);
    const init_images = [png.toString("base64"), `data:image/png;base64,${png.toString("base64")}`];
    const edit = { ...asked, init_images, denoising_strength: 0.7, sampler_name: "DPM++ 2M", width: 130, n_iter: 1 };
    const edited = await call("POST", "/sdapi/v1/img2img", { body: edit });
    expect(edited.value.images).toHaveLength(1);
    expect(edited.value.parameters).toMatchObject({ width: 128, height: 128, steps: 1 });
    expect(edited.value.warnings).toEqual([
      "the width is 128 instead of 130",
      "the sampler is Euler, whatever is asked for",
      expect.stringMatching(/^denoising_strength is ignored/),
    ]);
    const silent = await call("POST", "/sdapi/v1/txt2img", { body: { ...asked, send_images: false } });
    expect(silent.value.images).toEqual([]);
    expect((await call("GET", "/sdapi/v1/progress")).value).toMatchObject({ progress: 0, state: { job_count: 0 } });
    const { value: options } = await call("GET", "/sdapi/v1/options");
    expect(options.sd_model_checkpoint).toBe(server.modelName);
    expect((await call("POST", "/sdapi/v1/options", { body: options })).value).toEqual({});
    const set = await call("POST", "/sdapi/v1/options", { body: { CLIP_stop_at_last_layers: 2 } });
    expect(set.value.warnings).toEqual([expect.stringMatching(/^"CLIP_stop_at_last_layers" is not known/)]);
    expect((await call("GET", "/sdapi/v1/sd-models")).value).toMatchObject([{ title: server.modelName }]);
    expect((await call("GET", "/sdapi/v1/samplers")).value).toMatchObject([{ name: "Euler" }]);
  });

  test("the marks of what was drawn", async () => {
    const asked = smallRequest({ response_format: "data_url" });
    const { value } = await call("POST", "/v1/responses", { body: asked });
    const marks = await call("POST", "/v1/marks/detect", { body: { image_url: value.output[0].content[1].image_url } });
    expect(marks.value).toMatchObject({
      ...{ object: "marks", verdict: "ai", format: "png", credentials: { found: false } },
      metadata: { found: true, digital_source_type: "trainedAlgorithmicMedia", signed: false },
      watermark: { found: false, checked: true },
    });
  });

  test("the server itself", async () => {
    expect((await call("GET", "/healthz")).value).toEqual({ status: "ok" });
    expect((await call("GET", "/readyz")).value).toMatchObject({ status: "ready" });
    expect((await call("GET", "/v1/models")).value.data[0].id).toBe(server.modelName);
    expect((await call("GET", "/v1/models/{id}", { id: server.modelName })).value.limits.max_area).toBe(4194304);
    expect((await call("GET", "/version")).value.model).toBe(server.modelName);
    expect((await call("GET", "/metrics")).bytes.toString()).toMatch(/daybreak_images_total [1-9]/);
    expect((await call("GET", "/")).headers.get("content-type")).toMatch(/^text\/html/);
  });

  test("all of it fits the documents", async () => {
    const { value } = await call("GET", "/openapi.json");
    const own = new OwnDocument(value);
    const wrong: string[] = [];
    const seen = new Set<string>();
    for (const { path, method, status, type, value } of recorded) {
      seen.add(`${method} ${path}`);
      const event = value as { type?: string };
      const note = (errors: string[], by: string) => {
        if (errors.length > 0)
          wrong.push(`${method} ${path} ${status} ${event.type ?? ""} by ${by}: ${errors.slice(0, 4).join("; ")}`);
      };
      note(own.errors(path, method, status, type, value), "its own document");
      if (status >= 400 || !path.startsWith("/v1/responses") || isExtension(value)) continue;
      if (type === "text/event-stream") note(officialEventErrors(event as SseEvent), "the official document");
      else if ((value as { object?: string }).object === "response")
        note(officialErrors("ResponseResource", value), "the official document");
      else if ((value as { object?: string }).object === "response.compaction")
        note(officialErrors("CompactResource", value), "the official document");
    }
    expect(wrong).toEqual([]);
    const described = Object.entries(own.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((m) => `${m.toUpperCase()} ${path}`),
    );
    const files = /^GET (\/v1\/(images|videos)\/\{id\}\/content|\/metrics|\/([a-z]+\.(js|css))?)$/;
    expect(described.filter((route) => !seen.has(route) && !files.test(route))).toEqual([]);
  });
});

/** The profiles max and openai and the opt-in events are outside of the official document, and say so. */
function isExtension(value: unknown): boolean {
  return /"(output_image|output_video|image_generation_call|daybreak:[a-z.]+)"/.test(JSON.stringify(value));
}
