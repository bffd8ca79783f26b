// The MP4 file around H.264 pictures, and what every video encoder agrees on. Knows no encoder.
// The file is put together at its end, with its index before its pictures, so that a player can begin before it has all
// of it. Until then only the compressed pictures are in memory.

import { writeFile } from "node:fs/promises";
import { ArrayBufferTarget, Muxer } from "mp4-muxer";
import type { RgbImage } from "../engine/request.js";
import type { FileMarks } from "./marks/mark.js";
import { videoColours } from "./yuv.js";

export type VideoEncoderName = "webcodecs" | "ffmpeg" | "wasm";

export type VideoOptions = {
  /** Where the file goes; an existing one is overwritten. */
  path: string;
  /** In pixels, multiples of 16. */
  width: number;
  height: number;
  /** A whole number. */
  framesPerSecond: number;
  /** By default the first that is available. */
  encoder?: VideoEncoderName;
  /** That a machine made it; by default the file does not say so. */
  marks?: FileMarks;
};

/** A video being made; frames in their order, one call at a time. */
export type VideoWriter = {
  encoder: string;
  /** Resolves when the encoder can take the next one. */
  write(frame: RgbImage): Promise<void>;
  /** Resolves when the file is complete. */
  finish(): Promise<void>;
  /** Gives up; no file is left. */
  abort(): Promise<void>;
};

/** One of the encoders. `open` may assume that `isAvailable` was true. */
export type VideoEncoderKind = {
  name: VideoEncoderName;
  /** What to do where it is missing. */
  remedy: string;
  isAvailable(): Promise<boolean>;
  open(options: VideoOptions): Promise<VideoWriter>;
};

/** One compressed frame, as MP4 holds it: units of H.264 behind their length. */
export type CompressedFrame = { data: Uint8Array; isKey: boolean };

/** A file to be; `avcc`, the decoder's configuration, goes with the first frame. */
export type Mp4File = { add(frame: CompressedFrame, avcc?: Uint8Array): void; finish(): Promise<void> };

/** An MP4 file with one H.264 track in which every frame lasts 1 / `framesPerSecond`. */
export function mp4File({ path, width, height, framesPerSecond }: VideoOptions): Mp4File {
  const target = new ArrayBufferTarget();
  const muxer = new Muxer({
    target,
    video: { codec: "avc", width, height, frameRate: framesPerSecond },
    fastStart: "in-memory",
  });
  const frame_us = 1e6 / framesPerSecond;
  let count = 0;
  return {
    add: ({ data, isKey }, avcc) => {
      const decoderConfig = { codec: "avc1", codedWidth: width, codedHeight: height, colorSpace: videoColours };
      const meta = avcc && { decoderConfig: { ...decoderConfig, description: avcc } };
      muxer.addVideoChunkRaw(data, isKey ? "key" : "delta", count * frame_us, frame_us, meta);
      count++;
    },
    finish: async () => {
      muxer.finalize();
      await writeFile(path, new Uint8Array(target.buffer), { mode: 0o600 });
    },
  };
}
