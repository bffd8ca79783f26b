// H.264 through the package h264-mp4-encoder (minih264 in WebAssembly): slow, and everywhere. Knows its file format.
// It makes an MP4 file in a file system of its own memory, without colour tags and with its index at the end: the
// compressed frames are taken out of that and put into a file of our own.

import type { RgbImage } from "../engine/request.js";
import { assert } from "../errors.js";
import { mp4Box } from "./mp4-boxes.js";
import {
  type CompressedFrame,
  mp4File,
  type VideoEncoderKind,
  type VideoOptions,
  type VideoWriter,
} from "./mp4-file.js";
import { rgbToI420 } from "./yuv.js";

/** 10 is the best, 51 the worst. */
const quantizer = 18;
/** 0 is the best, 10 the fastest. */
const speed = 5;
const framesPerKey = 48;

let videos = 0;

export const wasm: VideoEncoderKind = {
  name: "wasm",
  remedy: 'install it with "npm install h264-mp4-encoder"',
  isAvailable: () =>
    load().then(
      () => true,
      () => false,
    ),
  open: openWasm,
};

/** Loads the package and takes off its listeners, which would answer to uncaught errors of the whole process. */
async function load() {
  const events = ["uncaughtException", "unhandledRejection"] as const;
  const before = events.map((event) => new Set<unknown>(process.listeners(event as "uncaughtException")));
  const { default: library } = await import("h264-mp4-encoder");
  events.forEach((event, i) => {
    for (const listener of process.listeners(event as "uncaughtException")) {
      if (!before[i]!.has(listener)) process.removeListener(event, listener);
    }
  });
  return library;
}

async function openWasm(options: VideoOptions): Promise<VideoWriter> {
  const encoder = await (await load()).createH264MP4Encoder();
  const { width, height, framesPerSecond: frameRate } = options;
  const outputFilename = `${videos++}.mp4`; // all encoders share one file system
  Object.assign(encoder, { width, height, frameRate, outputFilename, speed });
  Object.assign(encoder, { quantizationParameter: quantizer, groupOfPictures: framesPerKey });
  encoder.initialize();
  let state: "empty" | "open" | "final" = "empty";
  const close = () => {
    // Deleting an encoder that has frames and was not finalized stops the whole library; so does finalizing without any.
    if (state === "empty") return;
    if (state === "open") encoder.finalize();
    state = "empty";
    encoder.delete();
    encoder.FS.unlink(outputFilename);
  };
  return {
    encoder: "wasm",
    write: async (image: RgbImage) => {
      encoder.addFrameYuv(rgbToI420(image));
      state = "open";
    },
    finish: async () => {
      encoder.finalize();
      state = "final";
      const { avcc, frames } = readMp4(encoder.FS.readFile(outputFilename));
      close();
      const file = mp4File(options);
      for (const [i, frame] of frames.entries()) file.add(frame, i === 0 ? avcc : undefined);
      await file.finish();
    },
    abort: async () => close(),
  };
}

function box(bytes: Buffer, ...path: string[]): Buffer {
  const found = mp4Box(bytes, ...path);
  assert(found, `got an MP4 file without ${path.join("/")}`);
  return found;
}

/** The words of a table box, behind `skipped` bytes of version, flags and counts. */
function words(table: Buffer, skipped: number): number[] {
  return Array.from({ length: (table.length - skipped) >> 2 }, (_, i) => table.readUInt32BE(skipped + 4 * i));
}

/** The frames of an MP4 file with one H.264 track. Source: ISO/IEC 14496-12, §8.5 to §8.7. */
function readMp4(file: Uint8Array): { avcc: Uint8Array; frames: CompressedFrame[] } {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const table = box(bytes, "moov", "trak", "mdia", "minf", "stbl");
  const avc1 = box(box(table, "stsd").subarray(8), "avc1");
  const avcc = box(avc1.subarray(78), "avcC");
  const sizeTable = box(table, "stsz");
  const [sameSize, count] = [sizeTable.readUInt32BE(4), sizeTable.readUInt32BE(8)];
  const sizes = sameSize > 0 ? Array<number>(count).fill(sameSize) : words(sizeTable, 12);
  const offsets = words(box(table, "stco"), 8);
  const runs = words(box(table, "stsc"), 8); // (first chunk, frames in each from there on, description) …
  const keyTable = mp4Box(table, "stss");
  const keys = keyTable && new Set(words(keyTable, 8));
  const frames: CompressedFrame[] = [];
  offsets.forEach((offset, chunk) => {
    let run = 0;
    while (run + 3 < runs.length && runs[run + 3]! <= chunk + 1) run += 3;
    for (let i = 0, at = offset; i < runs[run + 1]!; i++) {
      const size = sizes[frames.length]!;
      frames.push({ data: bytes.subarray(at, at + size), isKey: keys?.has(frames.length + 1) ?? true });
      at += size;
    }
  });
  assert(frames.length === sizes.length, `got ${frames.length} frames in the chunks and ${sizes.length} in the table`);
  return { avcc, frames };
}
