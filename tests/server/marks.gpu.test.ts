// What a server's files say of themselves, by whichever route they leave: metadata in all of them, and a signature over
// the bytes that are stored, named and served.

import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeImage } from "../../src/media/images.js";
import { xmpPacket } from "../../src/media/marks/xmp.js";
import { findWatermark } from "../../src/watermark/find-watermark.js";
import { manifestsOf, signatureOf } from "../media/marks/manifest.js";
import { mp4Boxes, xmpOf } from "../media/marks/parts.js";
import { openServer, parseEvents, postJson, smallImage, smallRequest, type TestServer } from "./running.js";

// biome-ignore lint/suspicious/noExplicitAny: whatever a server may answer
type Value = any;

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const packet = (hasReferences = false) => xmpPacket({ model: "tiny <one>", version, hasReferences });
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

let dataDir: string;
let server: TestServer;

beforeAll(async () => {
  dataDir = mkdtempSync(join(tmpdir(), "daybreak-marks-"));
  const marks = { level: "full", watermark: { id: 9, key: 0xabc } } as const;
  server = await openServer({ modelName: "tiny <one>", dataDir, marks });
});
afterAll(async () => {
  await server.end();
  rmSync(dataDir, { recursive: true, force: true });
});

async function draw({ url }: TestServer, body: object): Promise<string[]> {
  const response = await postJson(`${url}/v1/responses`, body);
  const value: Value = await response.json();
  expect(response.status, JSON.stringify(value)).toBe(200);
  return [...JSON.stringify(value.output).matchAll(/"(http:[^"]+\/content)"/g)].map((match) => match[1]!);
}

async function fetched(url: string): Promise<{ bytes: Uint8Array; headers: Headers }> {
  const response = await fetch(url);
  expect(response.status).toBe(200);
  return { bytes: new Uint8Array(await response.arrayBuffer()), headers: response.headers };
}

function sideCar({ dataDir }: TestServer, url: string): Value {
  const id = /(?:img|vid)_[0-9a-f]{32}/.exec(url)![0];
  return JSON.parse(readFileSync(join(dataDir, "store", `${id}.json`), "utf8"));
}

/** What the pixels say. */
async function payloadOf(bytes: Uint8Array) {
  return findWatermark(await decodeImage(bytes), { keys: [0xabc] }).payload;
}

function expectSigned(bytes: Uint8Array, manifests = 1): void {
  const found = manifestsOf(bytes);
  expect(found.length).toBe(manifests);
  for (const manifest of found) expect(signatureOf(manifest).isRight).toBe(true);
}

test("says once at its start what it does", () => {
  const said = (one: TestServer) => one.logged.filter(({ marks }) => marks !== undefined);
  expect(said(server)).toMatchObject([
    {
      marks: ["metadata", "credentials", "watermark"],
      msg: expect.stringMatching(/signed by "Daybreak \(self-made\) [0-9a-f]{8}" until .*names nobody/),
    },
  ]);
});

describe("over /v1/responses", () => {
  test.each(["png", "jpeg", "webp"])(
    "%s is signed, and that file is the one that is stored and served",
    async (output_format) => {
      const [url = ""] = await draw(
        server,
        smallRequest({ width: 256, height: 256, output_format, response_format: "url" }),
      );
      const { bytes, headers } = await fetched(url);
      expect(xmpOf(bytes)).toBe(packet());
      expectSigned(bytes);
      if (output_format === "png") expect(await payloadOf(bytes)).toEqual({ kind: "text", id: 9 });
      const { sha256: stored, bytes: length, marks } = sideCar(server, url);
      expect([stored, length, marks]).toEqual([sha256(bytes), bytes.length, ["metadata", "credentials", "watermark"]]);
      expect(headers.get("etag")).toContain(sha256(bytes));
      expect(headers.get("content-length")).toBe(String(bytes.length));
      const part = await fetch(url, { headers: { range: "bytes=20-1019" } });
      expect(part.status).toBe(206);
      expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(20, 1020))).toBe(true);
    },
  );

  test("a reference is an ingredient, with its own manifest", async () => {
    const [reference = ""] = await draw(server, smallRequest({ response_format: "url" }));
    const content = [
      { type: "input_text", text: "a" },
      { type: "input_image", image_url: reference },
    ];
    const body = {
      ...smallRequest({ width: 256, height: 256, response_format: "url" }),
      input: [{ role: "user", content }],
    };
    const [url = ""] = await draw(server, body);
    const { bytes } = await fetched(url);
    expect(xmpOf(bytes)).toBe(packet(true));
    expectSigned(bytes, 2);
    expect(await payloadOf(bytes)).toEqual({ kind: "references", id: 9 });
  });

  test("a video is signed, its index first", async () => {
    const video = { ...smallImage, num_frames: 2, response_format: "url" };
    const [url = ""] = await draw(server, { input: "a", provider_options: { video } });
    const { bytes, headers } = await fetched(url);
    expectSigned(bytes);
    expect(xmpOf(bytes)).toBe(packet());
    const order = mp4Boxes(bytes).map(({ name }) => name);
    expect(order.indexOf("moov")).toBeLessThan(order.indexOf("mdat"));
    expect(headers.get("etag")).toContain(sha256(bytes));
    expect(sideCar(server, url).marks).toEqual(["metadata", "credentials", "watermark"]);
  });
});

test("self-made credentials are kept beside the files", () => {
  const text = readFileSync(join(dataDir, "credentials", "chain.pem"), "utf8");
  expect(text).toMatch(/^-----BEGIN CERTIFICATE-----/);
});

describe("over other routes", () => {
  const fromBase64 = (text: string) => new Uint8Array(Buffer.from(text, "base64"));

  test("the images API: a finished picture is signed, a partial one has metadata", async () => {
    const body = { prompt: "a", size: "128x128", steps: 2, stream: true, partial_images: 1 };
    const events: Value[] = parseEvents(await (await postJson(`${server.url}/v1/images/generations`, body)).text());
    const [partial] = events.filter(({ type }) => type === "image_generation.partial_image");
    const [completed] = events.filter(({ type }) => type === "image_generation.completed");
    const [early, whole] = [fromBase64(partial.b64_json), fromBase64(completed.b64_json)];
    expect([xmpOf(early), xmpOf(whole)]).toEqual([packet(), packet()]);
    expect(manifestsOf(early)).toEqual([]);
    expectSigned(whole);
  });

  test("the web UI's API", async () => {
    const body = { prompt: "a", width: 128, height: 128, steps: 1 };
    const answer: Value = await (await postJson(`${server.url}/sdapi/v1/txt2img`, body)).json();
    const bytes = fromBase64(answer.images[0]);
    expect(xmpOf(bytes)).toBe(packet());
    expectSigned(bytes);
  });
});
