// Videos by every encoder that is here: what the file says of itself, by a reader of this test's own, and, where there
// is an ffmpeg, what its decoder makes of the frames. The WebAssembly encoder is always tested.

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { RgbImage } from "../../src/engine/request.js";
import { openVideo, type VideoEncoderName, videoEncoders } from "../../src/media/mp4.js";
import { psnr, solidImage, syntheticImage } from "./synthetic.js";

const available = (await videoEncoders()) as VideoEncoderName[];
const everywhere: VideoEncoderName[] = ["webcodecs", "ffmpeg", "wasm"];
const absent = everywhere.filter((name) => !available.includes(name));
const canDecode = spawnSync("ffmpeg", ["-version"]).status === 0;
process.stdout.write(
  `video encoders tested: ${available.join(", ")}; not installed here: ${absent.join(", ") || "none"}; ` +
    `frames ${canDecode ? "decoded by ffmpeg" : "not decoded, because there is no ffmpeg"}\n`,
);

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daybreak-mp4-"));
  path = join(folder, "video.mp4");
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

type Box = { type: string; bytes: Buffer };

function boxes(bytes: Buffer): Box[] {
  const found: Box[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = bytes.readUInt32BE(at);
    if (size < 8 || at + size > bytes.length) throw new Error(`a box of ${size} bytes at ${at} of ${bytes.length}`);
    found.push({ type: bytes.toString("latin1", at + 4, at + 8), bytes: bytes.subarray(at + 8, at + size) });
    at += size;
  }
  return found;
}

function find(bytes: Buffer, ...types: string[]): Buffer {
  return types.reduce((within, type) => {
    const found = boxes(within).find((box) => box.type === type);
    if (!found) throw new Error(`no box ${type} of ${types.join("/")}`);
    return found.bytes;
  }, bytes);
}

/** What a file says of its one track. */
function readTrack(file: Buffer) {
  const track = find(file, "moov", "trak");
  const [header, media] = [find(track, "tkhd"), find(track, "mdia", "mdhd")];
  const is64 = media[0] === 1;
  const timescale = media.readUInt32BE(is64 ? 20 : 12);
  const duration = is64 ? Number(media.readBigUInt64BE(24)) : media.readUInt32BE(16);
  const table = find(track, "mdia", "minf", "stbl");
  const times = find(table, "stts");
  let [frames, ticks] = [0, 0];
  for (let at = 8; at < times.length; at += 8) {
    frames += times.readUInt32BE(at);
    ticks += times.readUInt32BE(at) * times.readUInt32BE(at + 4);
  }
  const entry = find(table, "stsd").subarray(8);
  const format = boxes(entry)[0]!;
  const colour = boxes(format.bytes.subarray(78)).find(({ type }) => type === "colr")?.bytes;
  return {
    order: boxes(file).map(({ type }) => type),
    width: header.readUInt32BE(header.length - 8) / 65536,
    height: header.readUInt32BE(header.length - 4) / 65536,
    seconds: duration / timescale,
    frames,
    framesInSizes: find(table, "stsz").readUInt32BE(8),
    summedSeconds: ticks / timescale,
    format: format.type,
    hasAvcc: boxes(format.bytes.subarray(78)).some(({ type }) => type === "avcC"),
    /** Primaries, transfer, matrix; then the full-range flag. */
    colour: colour && [colour.readUInt16BE(4), colour.readUInt16BE(6), colour.readUInt16BE(8), colour[10]! >> 7],
  };
}

async function makeVideo(encoder: VideoEncoderName, frames: RgbImage[], framesPerSecond: number): Promise<Buffer> {
  const { width, height } = frames[0]!;
  const video = await openVideo({ path, width, height, framesPerSecond, encoder });
  expect(video.encoder).toBe(encoder);
  for (const frame of frames) await video.write(frame);
  await video.finish();
  return readFileSync(path);
}

function decode(width: number, height: number): RgbImage[] {
  const run = spawnSync(
    "ffmpeg",
    ["-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-sws_flags", "accurate_rnd+bitexact", "-"],
    { maxBuffer: 1 << 28 },
  );
  expect(String(run.stderr)).toBe("");
  const bytes = width * height * 3;
  return Array.from({ length: run.stdout.length / bytes }, (_, i) => ({
    ...{ width, height },
    data: new Uint8Array(run.stdout.subarray(i * bytes, (i + 1) * bytes)),
  }));
}

it("the WebAssembly encoder is there", () => {
  expect(available).toContain("wasm");
  expect(available).toEqual(everywhere.filter((name) => available.includes(name)));
});

describe.each(available)("%s", (encoder) => {
  it.each([
    [320, 192, 25, 16],
    [64, 48, 1, 1],
    [256, 256, 61, 60],
  ])("%i×%i, %i frames at %i a second: the file says so", async (width, height, count, framesPerSecond) => {
    const frames = Array.from({ length: count }, (_, i) => syntheticImage(width, height, i));
    const track = readTrack(await makeVideo(encoder, frames, framesPerSecond));
    expect(track).toMatchObject({ width, height, frames: count, framesInSizes: count, format: "avc1", hasAvcc: true });
    expect(track.seconds).toBeCloseTo(count / framesPerSecond, 6);
    expect(track.summedSeconds).toBeCloseTo(count / framesPerSecond, 6);
    expect(track.order.indexOf("moov")).toBeLessThan(track.order.indexOf("mdat"));
    expect(track.colour).toEqual([1, 1, 1, 0]); // BT.709, limited range
    if (!canDecode) return;
    const decoded = decode(width, height);
    expect(decoded).toHaveLength(count);
    decoded.forEach((frame, i) => {
      expect(psnr(frame, frames[i]!), `frame ${i}`).toBeGreaterThan(30);
    });
  });

  it.runIf(canDecode)("keeps saturated colours", async () => {
    const colours = [
      [255, 0, 0],
      [0, 255, 0],
      [0, 0, 255],
      [255, 255, 255],
      [0, 0, 0],
      [128, 128, 128],
      [255, 255, 0],
    ];
    const frames = colours.map((colour) => solidImage(64, 64, colour));
    await makeVideo(encoder, frames, 4);
    decode(64, 64).forEach((frame, i) => {
      const centre = [...frame.data.subarray((32 * 64 + 32) * 3, (32 * 64 + 32) * 3 + 3)];
      for (const [c, value] of centre.entries()) {
        expect(Math.abs(value - colours[i]![c]!), `${colours[i]} became ${centre}`).toBeLessThanOrEqual(6);
      }
    });
  });

  it("leaves no file when it is given up", async () => {
    const video = await openVideo({ path, width: 64, height: 64, framesPerSecond: 16, encoder });
    await video.write(solidImage(64, 64, [1, 2, 3]));
    await video.abort();
    await video.abort();
    expect(readdirSync(folder)).toEqual([]);
    await expect(video.write(solidImage(64, 64, [1, 2, 3]))).rejects.toThrow(/over/);
  });

  it("fails with a code where its file cannot be, and leaves nothing", async () => {
    const options = { path: join(folder, "absent", "video.mp4"), width: 64, height: 64, framesPerSecond: 16, encoder };
    const making = async () => {
      const video = await openVideo(options);
      for (let i = 0; i < 50; i++) await video.write(solidImage(64, 64, [1, 2, 3]));
      await video.finish();
    };
    const error = await making().catch((caught) => caught);
    expect(error).toMatchObject({ name: "DaybreakError", code: expect.stringMatching(/^media\./) });
    expect(error.message).not.toContain(folder);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("asserts sizes and an end with frames", async () => {
    const options = { path, width: 64, height: 64, framesPerSecond: 16, encoder };
    await expect(openVideo({ ...options, width: 60 })).rejects.toThrow(/multiples of 16/);
    await expect(openVideo({ ...options, framesPerSecond: 0.5 })).rejects.toThrow(/whole number/);
    const video = await openVideo(options);
    await expect(video.write(solidImage(32, 64, [0, 0, 0]))).rejects.toThrow(/32×64/);
    await expect(video.finish()).rejects.toThrow(/no frames/);
    await video.abort();
  });
});

describe("an ffmpeg that dies", () => {
  const oldPath = process.env.PATH;

  afterEach(() => {
    process.env.PATH = oldPath;
  });

  it.skipIf(process.platform === "win32" || !available.includes("ffmpeg"))("rejects and leaves no file", async () => {
    const script = `#!/bin/sh\nhead -c 20000 > /dev/null\necho partial > ${path}\necho "Conversion failed!" >&2\nexit 7\n`;
    writeFileSync(join(folder, "ffmpeg"), script, { mode: 0o755 });
    process.env.PATH = `${folder}${delimiter}${oldPath}`;
    const video = await openVideo({ path, width: 256, height: 256, framesPerSecond: 16, encoder: "ffmpeg" });
    const writing = async () => {
      for (let i = 0; i < 20; i++) await video.write(solidImage(256, 256, [1, 2, 3]));
    };
    await expect(writing()).rejects.toMatchObject({
      code: "media.encoder_failed",
      message: expect.stringContaining("Conversion failed!"),
    });
    expect(existsSync(path)).toBe(false);
  });
});

it("an encoder that is not installed is named, with its remedy", async () => {
  if (absent.length === 0) return expect(available).toEqual(everywhere);
  const options = { path, width: 64, height: 64, framesPerSecond: 16, encoder: absent[0]! };
  await expect(openVideo(options)).rejects.toMatchObject({
    code: "media.encoder_missing",
    message: expect.stringContaining(absent[0]!),
  });
});

it("loading the encoders leaves the process's error listeners alone", async () => {
  const count = process.listenerCount("uncaughtException") + process.listenerCount("unhandledRejection");
  await makeVideo("wasm", [solidImage(16, 16, [9, 9, 9])], 1);
  expect(process.listenerCount("uncaughtException") + process.listenerCount("unhandledRejection")).toBe(count);
});
