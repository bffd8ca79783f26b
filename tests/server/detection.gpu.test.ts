// Looking for marks over HTTP: in every form that a file may come in, with the refusals of references, and beside another
// key's picture, which waits neither for hostile files nor for large ones.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { deflateSync } from "node:zlib";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encodePng } from "../../src/media/png.js";
import { buildProgram, daybreak } from "../cli/program.js";
import { blackPng, syntheticImage } from "../media/synthetic.js";
import { openServer, postJson, smallRequest, type TestServer } from "./running.js";

// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;

const marked = readFileSync(new URL("../watermark/cases/cat-256-marked.png", import.meta.url));
const webp = readFileSync(new URL("../watermark/cases/cat-256-webp75.webp", import.meta.url));
const dataUri = (bytes: Uint8Array) => `data:image/png;base64,${Buffer.from(bytes).toString("base64")}`;

let folder: string;
let server: TestServer;
let url: string;
beforeAll(async () => {
  await buildProgram();
  folder = mkdtempSync(join(tmpdir(), "daybreak-detection-"));
  writeFileSync(join(folder, "keys"), "greedy-key-0001\nmodest-key-0002\n");
  const marks = { level: "full", watermark: { id: 9 } } as const;
  server = await openServer({ listener: "auto", apiKeyFile: join(folder, "keys"), marks });
  url = `${server.url}/v1/marks/detect`;
  await modest(); // kernels are compiled
}, 120_000);
afterAll(async () => {
  await server.end();
  rmSync(folder, { recursive: true, force: true });
});

const key = (name: "greedy" | "modest") => ({
  authorization: `Bearer ${name === "greedy" ? "greedy-key-0001" : "modest-key-0002"}`,
});
const post = (body: Uint8Array | string | FormData, type?: string, signal?: AbortSignal) =>
  fetch(url, {
    method: "POST",
    headers: { ...key("greedy"), ...(type && { "content-type": type }) },
    body: body as BodyInit,
    signal: signal ?? null,
  });
const modest = () =>
  postJson(`${server.url}/v1/responses`, smallRequest({ width: 256, height: 256, steps: 4 }), {
    headers: key("modest"),
  });

async function answered(response: Promise<Response>): Promise<Value> {
  const value: Value = await (await response).json();
  expect((await response).status, JSON.stringify(value)).toBe(200);
  return value;
}

function form(...files: (Uint8Array | string)[]): FormData {
  const parts = new FormData();
  for (const file of files) {
    if (typeof file === "string") parts.append("file", file);
    else parts.append("file", new Blob([new Uint8Array(file)]), "a");
  }
  return parts;
}

describe("a file", () => {
  const expected = { object: "marks", verdict: "daybreak", watermark: { found: true, kind: "text", id: 0, scale: 1 } };

  test.each<[string, () => Promise<Response>, string]>([
    ["by its type", () => post(marked, "image/png"), "png"],
    ["under another type, which its bytes overrule", () => post(webp, "image/png"), "webp"],
    ["as any bytes", () => post(marked, "application/octet-stream"), "png"],
    ["in a form", () => post(form(webp)), "webp"],
    ["in JSON", () => post(JSON.stringify({ image_url: dataUri(marked) }), "application/json"), "png"],
  ])("%s", async (_, send, format) => {
    expect(await answered(send())).toMatchObject({ ...expected, format });
  });

  test("of this server, by its URL, is signed by somebody known; re-encoded it is found by the command line", async () => {
    const request = smallRequest({ width: 256, height: 256, steps: 4 });
    const drawn: Value = await answered(postJson(`${server.url}/v1/responses`, request, { headers: key("greedy") }));
    const { image_url } = drawn.output[0].content[1];
    expect(await answered(post(JSON.stringify({ image_url }), "application/json"))).toMatchObject({
      verdict: "daybreak",
      metadata: { found: true, signed: true },
      credentials: { state: "trusted", generator: expect.stringMatching(/^Daybreak /), problems: [] },
      watermark: { found: true, kind: "text", id: 9 },
    });
    const file = new Uint8Array(await (await fetch(image_url)).arrayBuffer());
    const path = join(folder, "again.jpg");
    await sharp(file).resize(205).jpeg({ quality: 75 }).toFile(path);
    const { status, stdout } = daybreak(["detect", path, "--json"], { cwd: folder });
    expect([status, JSON.parse(stdout)]).toMatchObject([
      0,
      { file: path, verdict: "daybreak", metadata: { found: false }, watermark: { found: true, kind: "text", id: 9 } },
    ]);
  });
});

describe("refused", () => {
  const png = encodePng(syntheticImage(8, 8));
  test.each<[string, () => Promise<Response>, number, string, string | null]>([
    ["nothing", () => post("", "image/png"), 400, "reference_not_an_image", "file"],
    ["a text", () => post("made by a machine", "application/octet-stream"), 400, "reference_not_an_image", "file"],
    ["a PDF", () => post("%PDF-1.7\n", "image/png"), 400, "reference_format_unsupported", "file"],
    ["half a file", () => post(png.subarray(0, 60), "image/png"), 400, "reference_truncated", "file"],
    ["half its pixels", () => post(webp.subarray(0, 4000), "image/webp"), 400, "reference_truncated", "file"],
    ["too many pixels", () => post(blackPng({ side: 8200 }), "image/png"), 400, "reference_too_large", "file"],
    ["two files", () => post(form(png, png)), 400, "invalid_form", "file"],
    ["a text as a file", () => post(form("a")), 400, "invalid_form", "file"],
    ["another type", () => post("a", "text/plain"), 415, "unsupported_content_type", null],
    ["no URL", () => post("{}", "application/json"), 400, "invalid_value", "image_url"],
    [
      "a URL of elsewhere",
      () => post('{"image_url":"https://example.com/a.png"}', "application/json"),
      400,
      "reference_not_allowed",
      "image_url",
    ],
    [
      "a video that is gone",
      () => post(`{"image_url":"/v1/videos/vid_${"0".repeat(32)}/content"}`, "application/json"),
      404,
      "media_not_found",
      "image_url",
    ],
  ])("%s", async (_, send, status, code, param) => {
    const response = await send();
    expect([response.status, ((await response.json()) as Value).error]).toMatchObject([status, { code, param }]);
  });

  test("who has no key", async () => {
    expect((await fetch(url, { method: "POST", body: marked })).status).toBe(401);
  });

  test("a hundred megabytes in a tenth are no metadata", async () => {
    const bomb = Buffer.concat([
      Buffer.from("iTXtXML:com.adobe.xmp\0\x01\0\0\0"),
      deflateSync(Buffer.alloc(100 * 1024 ** 2, 32)),
    ]);
    const ends = [Buffer.alloc(4), Buffer.alloc(4)] as const;
    ends[0].writeUInt32BE(bomb.length - 4);
    const file = Buffer.concat([marked.subarray(0, 33), ends[0], bomb, ends[1], marked.subarray(33)]);
    expect(await answered(post(file, "image/png"))).toMatchObject({ metadata: { found: false }, verdict: "daybreak" });
  });
});

test("another key's picture takes no more than twice as long beside files that take long to look at", async () => {
  const timed = async () => {
    const began = performance.now();
    expect((await modest()).status).toBe(200);
    return performance.now() - began;
  };
  // Other tests have the processor now and then, so each round measures both, and one round in which they had it evenly tells.
  let [alone, beside] = [0, Number.POSITIVE_INFINITY];
  for (let i = 0; i < 6 && beside > 2 * alone; i++) {
    alone = await timed();
    const leave = new AbortController();
    // The first is looked at, the others wait: no file of a key's is looked at beside another.
    const files = [blackPng(), blackPng(), blackPng({ isDamaged: true }), marked.subarray(0, 90_000)];
    const left = files.map((file) => post(file, "image/png", leave.signal).catch(() => undefined));
    await sleep(400);
    beside = await timed();
    leave.abort();
    await Promise.all(left);
  }
  process.stdout.write(`a picture alone ${alone.toFixed(0)} ms, beside files with marks ${beside.toFixed(0)} ms\n`);
  expect(beside).toBeLessThanOrEqual(2 * alone);
  // What was left is over: the next file is looked at.
  expect(await answered(post(marked, "image/png"))).toMatchObject({ verdict: "daybreak" });
});
