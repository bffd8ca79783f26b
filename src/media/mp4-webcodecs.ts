// H.264 through the optional package @napi-rs/webcodecs, WebCodecs for Node: the fastest encoder where it is installed.
// Knows frames and compressed pictures; the file is mp4-file.ts. It contains x264, whose licence is the GPL: therefore it
// is never installed with this program. Planes are handed over, because it makes wrong colour tags from RGBA.

import { setTimeout as sleep } from "node:timers/promises";
import type { RgbImage } from "../engine/request.js";
import { mp4File, type VideoEncoderKind, type VideoOptions, type VideoWriter } from "./mp4-file.js";
import { rgbToI420, videoColours } from "./yuv.js";

/** What is used of the package; its own types are not there where it is not installed. */
type Chunk = { type: "key" | "delta"; timestamp: number; byteLength: number; copyTo(into: Uint8Array): void };
type Metadata = { decoderConfig?: { description?: Uint8Array | ArrayBuffer } };
type Encoder = {
  configure(config: object): void;
  encode(frame: Frame, options: object): void;
  flush(): Promise<void>;
  close(): void;
  readonly encodeQueueSize: number;
  readonly state: string;
};
type Frame = { close(): void };
type WebCodecs = {
  VideoEncoder: {
    new (callbacks: { output(chunk: Chunk, metadata?: Metadata): void; error(error: Error): void }): Encoder;
    isConfigSupported(config: object): Promise<{ supported?: boolean }>;
  };
  VideoFrame: new (planes: Uint8Array, init: object) => Frame;
};

const packageName: string = "@napi-rs/webcodecs";
const quantizer = 18;
const framesPerKey = 48;
const queueLimit = 4;
const poll_ms = 1;

export const webcodecs: VideoEncoderKind = {
  name: "webcodecs",
  remedy: `install it with "npm install ${packageName}"`,
  isAvailable,
  open: openWebcodecs,
};

async function load(): Promise<WebCodecs> {
  return (await import(packageName)) as WebCodecs;
}

async function isAvailable(): Promise<boolean> {
  try {
    const { VideoEncoder } = await load();
    const size = { path: "", width: 256, height: 256, framesPerSecond: 16 };
    return (await VideoEncoder.isConfigSupported(configuration(size))).supported === true;
  } catch {
    return false; // not installed, or without a binary for this platform
  }
}

function configuration({ width, height, framesPerSecond }: VideoOptions) {
  const blocks = (width / 16) * (height / 16);
  const isSmall = blocks <= 8192 && blocks * framesPerSecond <= 245_760; // the limits of level 4; of 5.1 otherwise
  return {
    codec: isSmall ? "avc1.640028" : "avc1.640033",
    ...{ width, height, framerate: framesPerSecond },
    ...{ bitrateMode: "quantizer", latencyMode: "quality", avc: { format: "avc" } },
  };
}

async function openWebcodecs(options: VideoOptions): Promise<VideoWriter> {
  const { VideoEncoder, VideoFrame } = await load();
  const { width, height, framesPerSecond } = options;
  const file = mp4File(options);
  let count = 0;
  let failure: Error | undefined;
  const output = (chunk: Chunk, metadata?: Metadata) => {
    try {
      const data = new Uint8Array(chunk.byteLength);
      chunk.copyTo(data);
      const description = metadata?.decoderConfig?.description;
      file.add({ data, isKey: chunk.type === "key" }, description && new Uint8Array(description));
    } catch (error) {
      failure ??= error as Error; // it would be lost if it were thrown into the package's callback
    }
  };
  const encoder = new VideoEncoder({
    output,
    error: (error) => {
      failure ??= error;
    },
  });
  encoder.configure(configuration(options));
  const close = () => {
    if (encoder.state !== "closed") encoder.close();
  };
  return {
    encoder: "webcodecs",
    write: async (image: RgbImage) => {
      const frame_us = 1e6 / framesPerSecond;
      const frame = new VideoFrame(rgbToI420(image), {
        ...{ format: "I420", codedWidth: width, codedHeight: height, colorSpace: videoColours },
        ...{ timestamp: Math.round(count * frame_us), duration: Math.round(frame_us) },
      });
      encoder.encode(frame, { keyFrame: count % framesPerKey === 0, avc: { quantizer } });
      frame.close();
      count++;
      while (!failure && encoder.encodeQueueSize > queueLimit) await sleep(poll_ms);
      if (failure) throw failure;
    },
    finish: async () => {
      await encoder.flush();
      close();
      if (failure) throw failure;
      await file.finish();
    },
    abort: async () => close(),
  };
}
