// Work in other threads: the same results as here, errors with their codes, a serving thread that stays responsive.
// Threads cannot run TypeScript, so they run the built files.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { referenceLimits as limits } from "../../src/engine/models/flux2/reference-image.js";
import type { RgbImage } from "../../src/engine/request.js";
import { encodeImage } from "../../src/media/encode.js";
import { decodeImage } from "../../src/media/images.js";
import { openVideo } from "../../src/media/mp4.js";
import { encodePng } from "../../src/media/png.js";
import { MediaWorkers } from "../../src/media/workers.js";
import { buildProgram, repository } from "../cli/program.js";
import { clocked } from "../clocked.js";
import { blackPng, psnr, solidImage, syntheticImage } from "./synthetic.js";

let workers: MediaWorkers;
let folder: string;

beforeAll(async () => {
  await buildProgram();
  workers = MediaWorkers.open();
}, 120_000);

afterAll(() => workers?.close());

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-workers-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function copyOf(image: RgbImage): RgbImage {
  return { ...image, data: image.data.slice() };
}

describe("encodeImage", () => {
  it.each(["png", "jpeg", "webp"] as const)("gives the same %s as in this thread", async (format) => {
    const image = syntheticImage(320, 240);
    const options = { format, quality: 80, text: { seed: "7" } };
    const expected = await encodeImage(copyOf(image), options);
    expect(Buffer.compare(await workers.encodeImage(image, options), expected)).toBe(0);
    expect(image.data.length).toBe(0); // handed over, not copied
  });

  it("gives the same file for a small PNG, which no thread sees", async () => {
    const image = syntheticImage(256, 256);
    const options = { format: "png", quality: 80 } as const;
    const expected = await encodeImage(copyOf(image), options);
    expect(Buffer.compare(await workers.encodeImage(image, options), expected)).toBe(0);
  });

  it("leaves alone what shares memory with the pixels", async () => {
    const image = syntheticImage(320, 240);
    const larger = new Uint8Array(300_000).fill(5);
    larger.set(image.data, 100);
    const part = { ...image, data: larger.subarray(100, 100 + image.data.length) };
    const file = await workers.encodeImage(part, { format: "png", quality: 90 });
    expect(psnr(await decodeImage(file), image)).toBe(Number.POSITIVE_INFINITY);
    expect(larger.length).toBe(300_000);
  });

  it("goes on after an error", async () => {
    const wrong = { width: 320, height: 240, data: new Uint8Array(5) };
    await expect(workers.encodeImage(wrong, { format: "png", quality: 90 })).rejects.toMatchObject({
      code: "engine.internal",
      message: expect.stringContaining("got 5 bytes"),
    });
    const all = Array.from({ length: 12 }, () =>
      workers.encodeImage(syntheticImage(320, 240), { format: "png", quality: 90 }),
    );
    expect(new Set((await Promise.all(all)).map(({ length }) => length)).size).toBe(1);
  });

  it("lets this thread go on", clocked, async () => {
    await workers.encodeImage(syntheticImage(320, 240), { format: "png", quality: 90 }); // the thread is warm
    const image = syntheticImage(1024, 1024);
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    await workers.encodeImage(image, { format: "png", quality: 90 });
    delay.disable();
    process.stdout.write(`longest delay while a 1024×1024 PNG was encoded: ${(delay.max / 1e6).toFixed(1)} ms\n`);
    // Below 30 on a quiet machine; a server must answer meanwhile.
    expect(delay.max / 1e6).toBeLessThan(150);
  });
});

describe("decodeReference", () => {
  it("gives the same pixels as in this thread, and leaves the bytes to the caller", async () => {
    const image = syntheticImage(96, 80);
    for (const format of ["png", "jpeg", "webp"] as const) {
      const bytes = await encodeImage(image, { format, quality: 90 });
      expect(await workers.decodeReference(bytes, limits)).toEqual(await decodeImage(bytes));
      expect(bytes.length).toBeGreaterThan(100);
    }
  });

  it.each([
    [32, 32, 64, 64],
    [1, 1, 64, 64],
    [40, 100, 64, 160],
    [100, 30, 213, 64],
    [1, 8, 64, 512],
    [64, 64, 64, 64],
  ])("scales %i×%i up to %i×%i", async (width, height, wide, high) => {
    const decoded = await workers.decodeReference(encodePng(solidImage(width, height, [10, 200, 77])), limits);
    expect(decoded).toEqual(solidImage(wide, high, [10, 200, 77]));
  });

  const patient = { ...clocked, timeout: 120_000 };
  it("is broken off in the middle when nobody wants it any more, and the next is decoded", patient, async () => {
    const large = blackPng();
    const small = await encodeImage(syntheticImage(96, 80), { format: "png", quality: 90 });
    const leave = new AbortController();
    const began = performance.now();
    const left = workers.decodeReference(large, limits, leave.signal);
    setTimeout(() => leave.abort(), 100);
    await expect(left).rejects.toMatchObject({ code: "request.cancelled" });
    expect((await workers.decodeReference(small, limits)).width).toBe(96);
    const broken_ms = performance.now() - began;
    await expect(workers.decodeReference(small, limits, AbortSignal.abort())).rejects.toMatchObject({
      code: "request.cancelled",
    });
    const again = performance.now();
    await workers.decodeReference(large, limits);
    expect(broken_ms).toBeLessThan(performance.now() - again);
  });

  it("keeps no finished picture waiting", async () => {
    const leave = new AbortController();
    let isOver = false;
    const decoding = workers.decodeReference(blackPng(), limits, leave.signal).finally(() => {
      isOver = true;
    });
    await workers.encodeImage(syntheticImage(320, 240), { format: "png", quality: 90 });
    expect(isOver).toBe(false);
    leave.abort();
    await expect(decoding).rejects.toMatchObject({ code: "request.cancelled" });
  });

  it.each<[string, Uint8Array, string]>([
    ["no image", Buffer.from("hello there, this is text"), "reference.not_an_image"],
    ["nothing", new Uint8Array(0), "reference.not_an_image"],
    ["half a file", encodePng(syntheticImage(64, 64)).subarray(0, 900), "reference.truncated"],
    ["a strip", encodePng(solidImage(10, 81, [0, 0, 0])), "reference.aspect_ratio"],
    ["a header of 100 megapixels", hugeHeader(), "reference.too_large"],
  ])("%s keeps its code", async (_, bytes, code) => {
    await expect(workers.decodeReference(bytes, limits)).rejects.toMatchObject({ name: "DaybreakError", code });
  });
});

/** A PNG whose header announces 10,000×10,000 pixels. */
function hugeHeader(): Uint8Array {
  const file = Buffer.from(encodePng(solidImage(8, 8, [0, 0, 0])));
  file.writeUInt32BE(10_000, 16);
  file.writeUInt32BE(10_000, 20);
  file.writeUInt32BE(crc32(file.subarray(12, 29)), 29);
  return file;
}

/** Source: PNG specification, annex D. */
function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

describe("openVideo", () => {
  const options = () => ({ path: join(folder, "a.mp4"), width: 96, height: 64, framesPerSecond: 8 });

  it("gives the same file as in this thread", async () => {
    const frames = Array.from({ length: 20 }, (_, i) => syntheticImage(96, 64, i));
    const here = await openVideo({ ...options(), path: join(folder, "b.mp4"), encoder: "wasm" });
    for (const frame of frames) await here.write(frame);
    await here.finish();
    const video = await workers.openVideo({ ...options(), encoder: "wasm" });
    expect(video.encoder).toBe("wasm");
    for (const frame of frames) await video.write(frame);
    expect(frames[0]?.data.length).toBe(0); // handed over
    await video.finish();
    // before the pictures lies the time of creation
    const pictures = (name: string) => {
      const file = readFileSync(join(folder, name));
      return file.subarray(file.indexOf("mdat"));
    };
    expect(pictures("a.mp4").length).toBeGreaterThan(1000);
    expect(Buffer.compare(pictures("a.mp4"), pictures("b.mp4"))).toBe(0);
    await expect(video.write(syntheticImage(96, 64))).rejects.toMatchObject({ code: "media.closed" });
    await expect(video.finish()).rejects.toMatchObject({ code: "media.closed" });
    expect(readdirSync(folder)).toEqual(["a.mp4", "b.mp4"]);
  });

  it("chooses an encoder, several at once", async () => {
    const paths = ["a", "b", "c"].map((name) => join(folder, `${name}.mp4`));
    await Promise.all(
      paths.map(async (path) => {
        const video = await workers.openVideo({ ...options(), path });
        for (let i = 0; i < 8; i++) await video.write(syntheticImage(96, 64, i));
        await video.finish();
      }),
    );
    for (const path of paths) expect(readFileSync(path).toString("latin1", 4, 8)).toBe("ftyp");
  });

  it("reports a wrong frame, and leaves nothing", async () => {
    const video = await workers.openVideo(options());
    const writing = async () => {
      for (let i = 0; i < 5; i++) await video.write(solidImage(64, 64, [1, 2, 3]));
    };
    await expect(writing()).rejects.toMatchObject({ message: expect.stringContaining("64×64") });
    await expect(video.finish()).rejects.toMatchObject({ message: expect.stringContaining("64×64") });
    expect(readdirSync(folder)).toEqual([]);
  });

  it("keeps the code of a file that cannot be", async () => {
    const video = await workers.openVideo({ ...options(), path: join(folder, "no", "a.mp4"), encoder: "wasm" });
    await video.write(syntheticImage(96, 64));
    await expect(video.finish()).rejects.toMatchObject({ code: "media.unwritable" });
  });

  it("leaves nothing when it is given up", async () => {
    const video = await workers.openVideo(options());
    await video.write(syntheticImage(96, 64));
    await video.abort();
    await video.abort();
    expect(readdirSync(folder)).toEqual([]);
    await expect(video.write(syntheticImage(96, 64))).rejects.toMatchObject({ code: "media.closed" });
  });
});

describe("closing", () => {
  it("breaks off what is under way and refuses more", async () => {
    const own = MediaWorkers.open();
    const video = await own.openVideo({ path: join(folder, "a.mp4"), width: 64, height: 64, framesPerSecond: 8 });
    await video.write(solidImage(64, 64, [1, 2, 3]));
    const tasks = Array.from({ length: 8 }, () =>
      own.encodeImage(syntheticImage(512, 512), { format: "png", quality: 90 }).then(
        () => "done",
        ({ code }) => code,
      ),
    );
    await own.close();
    await own.close();
    for (const end of await Promise.all(tasks)) expect(["done", "media.closed"]).toContain(end);
    expect(readdirSync(folder)).toEqual([]);
    await expect(video.write(solidImage(64, 64, [1, 2, 3]))).rejects.toMatchObject({ code: "media.closed" });
    await expect(own.decodeReference(new Uint8Array(5), limits)).rejects.toMatchObject({ code: "media.closed" });
    await expect(
      own.openVideo({ path: join(folder, "b.mp4"), width: 64, height: 64, framesPerSecond: 8 }),
    ).rejects.toMatchObject({ code: "media.closed" });
  });

  it("is not needed for the process to end", () => {
    const script = `
      const { MediaWorkers } = await import(${JSON.stringify(pathToFileURL(join(repository, "dist/src/media/workers.js")))});
      const workers = MediaWorkers.open();
      const video = await workers.openVideo({ path: ${JSON.stringify(join(folder, "a.mp4"))}, width: 16, height: 16, framesPerSecond: 1, encoder: "wasm" });
      await video.write({ width: 16, height: 16, data: new Uint8Array(768) });
      const file = await workers.encodeImage({ width: 4, height: 4, data: new Uint8Array(48) }, { format: "png", quality: 90 });
      console.log(file.length);`;
    const run = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      encoding: "utf8",
      timeout: 20_000,
    });
    expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
    expect(Number(run.stdout)).toBeGreaterThan(50);
  });
});
