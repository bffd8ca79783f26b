// Bodies that are wrong, and how each is to be refused: rows for the tests over real sockets. The second half is made
// from the schemas themselves, so that a member added later is tested without being named here.

import { crc32, deflateSync } from "node:zlib";
import type { z } from "zod";
import { imageEditBody, imageGenerationBody } from "../../src/server/images/schema.js";
import { compactBody, createResponseBody } from "../../src/server/responses/request-schema.js";
import { img2imgBody, txt2imgBody } from "../../src/server/sdapi/schema.js";

export type Row = {
  name: string;
  path?: string;
  /** An object is sent as JSON, a string as it is. */
  body: unknown;
  status?: number;
  code?: string;
  param?: string | null;
  message?: RegExp;
};

const responses = "/v1/responses";
const prompt = "a red circle";

/** Nested arrays as JSON text. */
export const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

const image = (options: unknown) => ({ input: prompt, provider_options: { image: options } });
const video = (options: unknown) => ({ input: prompt, provider_options: { video: options } });
const user = (...content: unknown[]) => ({ input: [{ role: "user", content }] });
const text = { type: "input_text", text: prompt };
/** A message with a prompt and a reference. */
export const withReference = (...urls: string[]) =>
  user(text, ...urls.map((image_url) => ({ type: "input_image", image_url })));

const at = (path: string, json: string) => `{"input":"a",${path.replace("*", json)}}`;
const deep = nested(100_000);

export const bodyRows: Row[] = [
  { name: "nothing", body: "", code: "invalid_json" },
  { name: "half an object", body: '{"input":', code: "invalid_json" },
  { name: "two objects", body: "{}{}", code: "invalid_json" },
  { name: "a secret that must not be quoted", body: "{secret-4711", code: "invalid_json", message: /^(?!.*4711)/ },
  { name: "invalid UTF-8", body: new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), code: "invalid_json" },
  ...["null", "[]", '"a"', "1", "true"].map((body) => ({ name: `the value ${body}`, body, code: "invalid_json" })),
  { name: "deep arrays", body: deep, code: "too_many_values" },
  { name: "deep arrays in input", body: `{"input":${deep}}`, code: "too_many_values" },
  { name: "deep arrays in metadata", body: at('"metadata":{"a":*}', deep), code: "too_many_values" },
  ...[
    { name: "the body", body: nested(9000), code: "invalid_json" },
    { name: "input", body: `{"input":${nested(9000)}}`, param: "input[0]" },
    { name: "a message", body: `{"input":[{"role":"user","content":${nested(9000)}}]}`, param: "input[0].content[0]" },
    { name: "metadata", body: at('"metadata":{"a":*}', nested(9000)), param: "metadata.a" },
    { name: "tools", body: at('"tools":*', nested(9000)), param: "tools[0]" },
    { name: "text.format", body: at('"text":{"format":*}', nested(9000)), param: "text.format" },
    { name: "provider_options", body: at('"provider_options":*', nested(9000)), param: "provider_options" },
  ].map((row) => ({ code: "invalid_value", ...row, name: `arrays 9000 deep as ${row.name}` })),
  { name: "a million empty objects", body: `{"input":[${"{},".repeat(1e6)}{}]}`, code: "too_many_values" },
  { name: "a million bad members of metadata", body: at('"metadata":{*}', manyMembers(1e6)), code: "too_many_values" },
  { name: "a name of a megabyte", body: image({ ["a".repeat(1e6)]: 1 }), message: /^.{0,400}$/ },
  { name: "17 pairs of metadata", body: { input: prompt, metadata: numbered(17) }, param: "metadata" },
  {
    name: "a long key",
    body: { input: prompt, metadata: { ["k".repeat(65)]: "" } },
    param: `metadata.${"k".repeat(65)}`,
    message: /at most 64/,
  },
  { name: "a long value", body: { input: prompt, metadata: { a: "v".repeat(513) } }, param: "metadata.a" },

  { name: "another model", body: { model: "gpt-9", input: prompt }, status: 404, ...wrongModel() },
  { name: "an empty model", body: { model: "", input: prompt }, status: 404, ...wrongModel() },
  { name: "a model of 10 kB", body: { model: "m".repeat(1e4), input: prompt }, status: 404, ...wrongModel() },
  ...[
    ["a width of 100", { width: 100 }, "width"],
    ["a width of 112", { width: 112 }, "width"],
    ["a width of 2064", { width: 2064 }, "width"],
    ["a width of 130", { width: 130, height: 128 }, "width"],
    ["a height of 0", { height: 0 }, "height"],
    ["a height of -128", { height: -128 }, "height"],
    ["a height of 128.5", { height: 128.5 }, "height"],
    ["a height of 1e300", { height: 1e300 }, "height"],
    ["0 steps", { steps: 0 }, "steps"],
    ["9 steps of a distilled model", { steps: 9 }, "steps"],
    ["101 steps", { steps: 101 }, "steps"],
    ["guidance below 0", { guidance_scale: -0.1 }, "guidance_scale"],
    ["0 images", { num_images: 0 }, "num_images"],
    ["11 images", { num_images: 11 }, "num_images"],
    ["the format gif", { output_format: "gif" }, "output_format"],
    ["the format svg+xml", { output_format: "svg+xml" }, "output_format"],
    ["compression 101", { output_compression: 101 }, "output_compression"],
    ["a response format", { response_format: "file" }, "response_format"],
    ["an output item", { output_item: "video" }, "output_item"],
    ["4 partial images", { partial_images: 4 }, "partial_images"],
    ["an unknown option", { sampler: "euler" }, "sampler"],
    ["an option of videos", { num_frames: 5 }, "num_frames"],
  ].map(([name, options, param]) => ({
    name: `image: ${name}`,
    body: image(options),
    param: `provider_options.image.${param}`,
  })),
  ...[
    ["0 frames", { num_frames: 0 }, "num_frames"],
    ["242 frames", { num_frames: 242 }, "num_frames"],
    ["61 frames a second", { frames_per_second: 61 }, "frames_per_second"],
    ["an option of images", { num_images: 2 }, "num_images"],
    ["the openai profile", { output_item: "openai" }, "output_item"],
  ].map(([name, options, param]) => ({
    name: `video: ${name}`,
    body: video(options),
    param: `provider_options.video.${param}`,
  })),
  { name: "an unknown provider", body: { input: prompt, provider_options: { x: {} } }, param: "provider_options.x" },
  { name: "a seed of 2^53", body: { input: prompt, seed: 2 ** 53 }, param: "seed" },
  { name: "a seed of -2", body: { input: prompt, seed: -2 }, param: "seed" },
  {
    name: "seeds beyond 2^53 - 1",
    body: { input: prompt, seed: 2 ** 53 - 3, n: 4 },
    code: "request_seed_invalid",
    param: "seed",
    message: /expected at most 9007199254740988/,
  },
  { name: "n of 11", body: { input: prompt, n: 11 }, param: "n" },
  ...[
    { temperature: 2.1 },
    { temperature: -0.1 },
    { top_p: 1.1 },
    { presence_penalty: 2.1 },
    { frequency_penalty: -2.1 },
    { top_logprobs: 21 },
    { max_output_tokens: 15 },
    { max_tool_calls: 0 },
    { safety_identifier: "s".repeat(65) },
    { prompt_cache_key: "k".repeat(65) },
  ].map((member) => ({
    name: JSON.stringify(member).slice(0, 40),
    body: { input: prompt, ...member },
    param: Object.keys(member)[0] as string,
  })),
  { name: "a number too large for a double", body: at('"temperature":*', "1e999"), param: "temperature" },

  ...["json_schema", "json_object"].map((type) => ({
    name: `the format ${type}`,
    body: { input: prompt, text: { format: { type, name: "a", schema: {} } } },
    param: "text.format",
  })),
  { name: "a function", body: { input: prompt, tools: [tool("function")] }, message: /cannot call functions/ },
  { name: "another tool", body: { input: prompt, tools: [tool("web_search")] }, param: "tools[0].type" },
  ...["16x16", "130x130", "4096x1024", "99999x99999", "0x0", "128", "-128x128", "128x128x128"].map((size) => ({
    name: `the tool's size ${size}`,
    body: { input: prompt, tools: [{ type: "image_generation", size }] },
    param: "tools[0].size",
  })),
  ...[
    ["required", undefined],
    [{ type: "image_generation" }, []],
    [{ type: "function", name: "f" }, [tool("image_generation")]],
    [{ type: "allowed_tools", tools: [tool("image_generation")] }, undefined],
    [{ type: "allowed_tools", tools: [] }, [tool("image_generation")]],
    ["maybe", undefined],
    [{ type: "web_search" }, undefined],
  ].map(([tool_choice, tools]) => ({
    name: `the choice ${JSON.stringify(tool_choice)} of ${JSON.stringify(tools)}`,
    body: { input: prompt, tool_choice, tools },
    param: undefined,
    message: /tool_choice|tool choice/,
  })),
  {
    name: "the output of an unknown call",
    body: {
      input: [
        { type: "function_call_output", call_id: "call_1", output: "1" },
        { role: "user", content: "a" },
      ],
    },
    code: "unknown_call_id",
    param: "input[0].call_id",
  },
  {
    name: "background that is not stored",
    body: { input: prompt, background: true, store: false },
    param: "background",
  },

  ...[
    undefined,
    null,
    "",
    " \n\t",
    [],
    [{ role: "user", content: "" }],
    [{ role: "user", content: [] }],
    [{ role: "assistant", content: prompt }],
  ].map((input) => ({
    name: `no text: ${JSON.stringify(input)}`,
    body: { input },
    code: "missing_prompt",
    param: "input",
  })),
  { name: "a role", body: { input: [{ role: "tool", content: "a" }] }, param: "input[0].role" },
  { name: "an item", body: { input: [{ type: "mcp_call", id: "a" }] }, param: "input[0].type" },
  { name: "a part", body: user({ type: "input_audio" }), param: "input[0].content[0].type" },
  { name: "a file", body: user(text, { type: "input_file", file_data: "YQ==" }), code: "unsupported_content" },
  { name: "600 words", body: { input: "circle ".repeat(600) }, ...tooLong(/(\d{3,}) tokens.* 512/) },
  { name: "a prompt of 1 MB", body: { input: "a".repeat(1e6) }, ...tooLong(/1000000 .*512/) },
  { name: "a prompt of 10 MB and more", body: { input: "a".repeat(10 * 2 ** 20 + 1) }, param: "input" },
  { name: "half a character", body: '{"input":"a\\ud83d"}', code: "request_prompt_invalid", param: "input" },
  {
    name: "half a character, to be truncated",
    body: '{"input":"a\\ud83d","truncation":"auto"}',
    code: "request_prompt_invalid",
    param: "input",
  },
  ...["auto", "disabled"].flatMap((truncation) =>
    [
      ["combining marks", "\u0301\u0316".repeat(30_000)],
      ["spaces", `a${" ".repeat(60_000)}`],
    ].map(([name, input]) => ({
      name: `60,000 ${name}, truncation ${truncation}`,
      body: { input, truncation },
      code: "request_prompt_invalid",
      param: "input",
    })),
  ),
  { name: "marks in instructions", body: { input: prompt, instructions: "\u0301\u0316".repeat(3e4) }, param: "input" },
  ...["resp_0", `resp_${"0".repeat(32)}`, "../../etc/passwd", "\0", "x".repeat(1e5), "💥"].map((id) => ({
    name: `to go on from ${JSON.stringify(id).slice(0, 40)}`,
    body: { input: prompt, previous_response_id: id },
    code: "previous_response_not_found",
    param: "previous_response_id",
    message: /^.{0,400}$/,
  })),
  ...["msg_0", `ig_${"0".repeat(32)}`, "__proto__", "x".repeat(1e5)].flatMap((id) =>
    ["item_reference", "image_generation_call"].map((type) => ({
      name: `${type} ${id.slice(0, 40)}`,
      body: {
        input: [
          { type, id },
          { role: "user", content: prompt },
        ],
      },
      status: 404,
      code: "item_not_found",
      param: "input[0].id",
    })),
  ),
  ...["", "x", "d1.", "d1.AAAA", `d1.${"A".repeat(100)}`, "d1.💥", "d2.AAAA"].map((encrypted_content) => ({
    name: `encrypted content ${encrypted_content.slice(0, 20)}`,
    body: {
      input: [
        { type: "compaction", encrypted_content },
        { role: "user", content: prompt },
      ],
    },
    code: "invalid_compaction",
    param: "input[0].encrypted_content",
  })),
  { name: "compact without a model", path: `${responses}/compact`, body: { input: prompt }, param: "model" },
  { name: "compact of another", path: `${responses}/compact`, body: { model: "x" }, status: 404, ...wrongModel() },

  ...[
    { name: "no prompt", body: {}, param: "prompt" },
    { name: "an empty prompt", body: { prompt: "" }, param: "prompt" },
    { name: "32,001 characters", body: { prompt: "a".repeat(32_001) }, param: "prompt" },
    { name: "600 words", body: { prompt: "circle ".repeat(600) }, param: "prompt", code: "request_prompt_too_long" },
    { name: "marks", body: { prompt: "\u0301\u0316".repeat(1e4) }, param: "prompt" },
    { name: "another model", body: { prompt, model: "dall-e-3" }, status: 404, ...wrongModel() },
    { name: "n of 0", body: { prompt, n: 0 }, param: "n" },
    { name: "a small size", body: { prompt, size: "16x16" }, param: "size" },
    { name: "a size of no multiple", body: { prompt, size: "1000x1000" }, param: "size" },
    { name: "a width of no multiple", body: { prompt, width: 130 }, param: "width" },
    { name: "a small height", body: { prompt, height: 112 }, param: "height" },
    { name: "9 steps of a distilled model", body: { prompt, steps: 9 }, param: "steps" },
    { name: "guidance below 0", body: { prompt, guidance_scale: -1 }, param: "guidance_scale" },
    { name: "a shape of words", body: { prompt, aspect_ratio: "wide" }, param: "aspect_ratio" },
    { name: "a shape of nothing", body: { prompt, aspect_ratio: "16:0" }, param: "aspect_ratio" },
    {
      name: "a long shape",
      body: { prompt, aspect_ratio: "17:1" },
      param: "aspect_ratio",
      code: "request_size_invalid",
    },
    { name: "a seed of -2", body: { prompt, seed: -2 }, param: "seed" },
    {
      name: "seeds beyond 2^53 - 1",
      body: { prompt, seed: 2 ** 53 - 1, n: 2 },
      code: "request_seed_invalid",
      param: "seed",
      message: /expected at most 9007199254740990$/,
    },
    { name: "transparency", body: { prompt, background: "transparent" }, param: "background" },
    { name: "data URLs", body: { prompt, response_format: "data_url" }, param: "response_format" },
  ].map((row) => ({ ...row, name: `generations: ${row.name}`, path: "/v1/images/generations" })),
  ...[
    { name: "no image", body: { prompt }, param: "images" },
    { name: "9 images", body: { prompt, images: repeated(9, { image_url: "data:," }) }, code: "too_many_images" },
    { name: "17 images", body: { prompt, images: repeated(17, { image_url: "data:," }) }, param: "images" },
    { name: "a mask", body: { prompt, images: [{ image_url: "data:," }], mask: {} }, param: "mask" },
    { name: "a file", body: { prompt, images: [{ image_url: "file:///etc/passwd" }] }, param: "images[0].image_url" },
  ].map((row) => ({ ...row, name: `edits: ${row.name}`, path: "/v1/images/edits" })),
  { name: "variations", path: "/v1/images/variations", body: { image: "a" }, code: "variations_not_offered" },
  ...[
    { name: "transparency", tool: { background: "transparent" }, code: "unsupported_background", at: "background" },
    { name: "a mask", tool: { input_image_mask: {} }, code: "unsupported_mask", at: "input_image_mask" },
  ].map(({ name, tool, code, at }) => ({
    name: `the tool: ${name}`,
    body: { input: prompt, tools: [{ type: "image_generation", ...tool }] },
    code,
    param: `tools[0].${at}`,
  })),
  {
    name: "the openai profile for a video, on the top level",
    body: { input: prompt, output_item: "openai", provider_options: { video: {} } },
    param: "output_item",
  },
  ...[
    { name: "no prompt", body: {}, param: "prompt" },
    { name: "another model", body: { prompt, override_settings: { sd_model_checkpoint: "v1-5" } }, status: 404 },
    { name: "too many images", body: { prompt, batch_size: 4, n_iter: 3 }, param: "batch_size" },
    { name: "a mask", body: { prompt, mask: "AAAA" }, code: "unsupported_mask", param: "mask" },
    { name: "0 steps", body: { prompt, steps: 0 }, param: "steps" },
    { name: "a seed of -2", body: { prompt, seed: -2 }, param: "seed" },
  ].map((row) => ({ ...row, name: `txt2img: ${row.name}`, path: "/sdapi/v1/txt2img" })),
  ...[
    { name: "no image", body: { prompt }, param: "init_images" },
    { name: "9 images", body: { prompt, init_images: repeated(9, "AAAA") }, param: "init_images" },
    { name: "a URL", body: { prompt, init_images: ["http://127.0.0.1/a.png"] }, code: "reference_invalid" },
    { name: "no picture", body: { prompt, init_images: ["data:,a"] }, param: "init_images[0]" },
  ].map((row) => ({ ...row, name: `img2img: ${row.name}`, path: "/sdapi/v1/img2img" })),
  { name: "another checkpoint", path: "/sdapi/v1/options", body: { sd_model_checkpoint: "v1-5" }, status: 404 },
];

function wrongModel() {
  return { code: "model_not_found", param: "model", message: /currently serving/ };
}

function tooLong(message: RegExp) {
  return { code: "request_prompt_too_long", param: "input", message };
}

function tool(type: string) {
  return { type, name: "f" };
}

function repeated<T>(count: number, value: T): T[] {
  return new Array<T>(count).fill(value);
}

function numbered(count: number) {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, ""]));
}

function manyMembers(count: number): string {
  return `${Array.from({ length: count }, (_, i) => `"k${i}":1`).join(",")}`;
}

// References

const png = (chunks: [string, Uint8Array][]) => {
  const parts = chunks.flatMap(([type, data]) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return [length, body, sum];
  });
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), ...parts]);
};

/** A PNG file of one colour, whatever its header says of its size. */
export function plainPng(width: number, height: number, pixels = { width, height }): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2], 8);
  const rows = Buffer.alloc((pixels.width * 3 + 1) * pixels.height);
  return png([
    ["IHDR", header],
    ["IDAT", deflateSync(rows)],
    ["IEND", Buffer.alloc(0)],
  ]);
}

export const dataUri = (bytes: Uint8Array, type = "image/png") =>
  `data:${type};base64,${Buffer.from(bytes).toString("base64")}`;

const html = Buffer.from("<!doctype html><script>alert(1)</script>");
const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>');

/** @param own the server's URL @param small a whole PNG file */
export function referenceRows(own: string, small: Uint8Array): Row[] {
  const refused = (name: string, url: string, code = "reference_not_allowed"): Row => ({
    name: `a reference: ${name}`,
    body: withReference(url),
    code,
    param: "input[0].content[1].image_url",
  });
  const { port } = new URL(own);
  return [
    ...[
      "file:///etc/passwd",
      "FILE://localhost/etc/passwd",
      "http://127.0.0.1",
      "http://169.254.169.254/latest/meta-data/",
      `http://localhost:${port}/healthz`,
      `${own}/healthz`,
      `${own}/v1/images/../../etc/passwd`,
      "http://[::1]/",
      "http://[::ffff:127.0.0.1]/",
      "http://2130706433/",
      "https://example.com/cat.png",
      "//example.com/cat.png",
      "ftp://example.com/cat.png",
      "gopher://127.0.0.1:6379/_INFO",
      "javascript:alert(1)",
      "blob:https://example.com/1",
      "/etc/passwd",
      "../../../etc/passwd",
      "cat.png",
      `http://${"a".repeat(1e6)}`,
      `${"\0".repeat(10)}http://127.0.0.1`,
    ].map((url) => refused(url.slice(0, 60), url)),
    refused("data: of three letters", "data:image/png,abc", "reference_not_an_image"),
    refused("data: without anything", "data:", "reference_invalid"),
    refused("data: of other characters", "data:image/png;base64,%%%%", "reference_invalid"),
    refused("base64 with spaces, of nothing", "data:image/png;base64,AAAA AAAA AAAA AAAA", "reference_not_an_image"),
    refused("base64 with other spaces", "data:image/png;base64,AAAA\u00a0AAAA", "reference_invalid"),
    refused("nothing in base64", "data:image/png;base64,", "reference_not_an_image"),
    refused("text", dataUri(Buffer.from("hello, world, this is no picture")), "reference_not_an_image"),
    refused("HTML", dataUri(html), "reference_not_an_image"),
    refused("SVG", dataUri(svg, "image/svg+xml"), "reference_format_unsupported"),
    refused(
      "a header of 60000×60000",
      dataUri(plainPng(60_000, 60_000, { width: 1, height: 1 })),
      "reference_too_large",
    ),
    refused("a PNG of 9000×9000", dataUri(ninethousand()), "reference_too_large"),
    refused(
      "a header of more pixels than follow",
      dataUri(plainPng(512, 512, { width: 8, height: 8 })),
      "reference_truncated",
    ),
    refused("a header of no pixels", dataUri(plainPng(0, 0, { width: 1, height: 1 })), "reference_damaged"),
    refused("half a PNG", dataUri(small.subarray(0, small.length / 2)), "reference_truncated"),
    refused("an asset that is not here", `${own}/v1/images/img_${"0".repeat(32)}/content`, "media_not_found"),
    refused("nor with a query", `${own}/v1/images/img_${"0".repeat(32)}/content?a=b`, "media_not_found"),
    { name: "an image without a source", body: user(text, { type: "input_image" }), code: "missing_image" },
    { name: "9 images", body: withReference(...repeated(9, dataUri(small))), code: "too_many_images" },
  ].map((row) => (row.code === "media_not_found" ? { ...row, status: 404 } : row));
}

let compressed: Buffer | undefined;
function ninethousand(): Buffer {
  compressed ??= plainPng(9000, 9000);
  return compressed;
}

// From the schemas

const wrongValues = [{}, [], [[]], 17.5, -1, "wrong", "", true, { type: "wrong" }, [{ type: "wrong" }], 1e300];

/** Every member with every value that its schema refuses. */
export function schemaRows(): Row[] {
  const { provider_options: options } = createResponseBody.shape;
  const { image: imageSchema, video: videoSchema, max } = bare<z.ZodObject<Record<string, z.ZodType>>>(options).shape;
  const nestedRows = Object.entries({ image: imageSchema, video: videoSchema, max }).flatMap(([room, schema]) =>
    memberRows(bare<z.ZodObject>(schema as z.ZodType), {}, `provider_options.${room}.`, (options) => ({
      input: prompt,
      provider_options: { [room]: options },
    })),
  );
  const edited = { prompt, images: [{ image_url: "data:," }] };
  return [
    ...memberRows(createResponseBody, { input: prompt }),
    ...nestedRows,
    ...memberRows(compactBody, { model: "m" }).map((row) => ({ ...row, path: `${responses}/compact` })),
    ...memberRows(imageGenerationBody, { prompt }).map((row) => ({ ...row, path: "/v1/images/generations" })),
    ...memberRows(imageEditBody, edited).map((row) => ({ ...row, path: "/v1/images/edits" })),
    ...memberRows(txt2imgBody, { prompt }).map((row) => ({ ...row, path: "/sdapi/v1/txt2img" })),
    ...memberRows(img2imgBody, { prompt, init_images: ["data:,"] }).map((row) => ({
      ...row,
      path: "/sdapi/v1/img2img",
    })),
  ];
}

function memberRows(
  schema: z.ZodObject,
  rest: Record<string, unknown>,
  prefix = "",
  wrap = (body: Record<string, unknown>): unknown => body,
): Row[] {
  return Object.entries(schema.shape).flatMap(([name, member]) =>
    wrongValues
      .filter((value) => !(member as z.ZodType).safeParse(value).success)
      .map((value) => ({
        name: `${prefix}${name}: ${JSON.stringify(value)}`,
        body: wrap({ ...rest, [name]: value }),
        code: "invalid_value",
        param: `${prefix}${name}…`,
      })),
  );
}

/** A schema without what makes it optional. */
function bare<T extends z.ZodType>(schema: z.ZodType): T {
  let inner = schema as z.ZodType & { unwrap?: () => z.ZodType };
  while (inner.unwrap) inner = inner.unwrap();
  return inner as unknown as T;
}

/** A body in which every member that may be absent is null. */
export function nulled(schema: z.ZodObject, rest: Record<string, unknown>): Record<string, unknown> {
  const optional = Object.entries(schema.shape).filter(([, member]) => (member as z.ZodType).safeParse(null).success);
  return { ...Object.fromEntries(optional.map(([name]) => [name, null])), ...rest };
}
