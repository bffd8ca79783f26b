// Single frames through the optional package @napi-rs/webcodecs, WebCodecs for Node: it takes files apart and decodes them.
// Knows no watermark. Its frames come as planes, of which the first holds the brightness.

import type { RgbImage } from "../engine/images.js";
import type { FrameDecoder } from "./video-frames.js";
import { greyImage } from "./yuv.js";

/** What is used of the package; its own types are not there where it is not installed. */
type Frame = {
  format: string | null;
  codedWidth: number;
  codedHeight: number;
  allocationSize(): number;
  copyTo(into: Uint8Array): Promise<{ offset: number; stride: number }[]>;
  close(): void;
};
type Chunk = { timestamp: number };
type Decoder = { configure(config: object): void; decode(chunk: Chunk): void; flush(): Promise<void>; close(): void };
type Demuxer = {
  load(path: string): Promise<void>;
  videoDecoderConfig: object | null;
  seek(timestamp_us: number): void;
  demuxAsync(count: number): Promise<void>;
  close(): void;
};
type WebCodecs = {
  VideoDecoder: new (callbacks: { output(frame: Frame): void; error(error: Error): void }) => Decoder;
  Mp4Demuxer: new (callbacks: { videoOutput(chunk: Chunk): void; error(error: Error): void }) => Demuxer;
};

const packageName: string = "@napi-rs/webcodecs";
/** Packets that are decoded at once, and in all: a frame that none of so many gives is given up. */
const [packetsAtOnce, mostPackets] = [16, 1024];
/** Formats of 8 bits whose first plane is the brightness. */
const planar = /^(I420A?|I422A?|I444A?|NV12)$/;

export const webcodecsFrames: FrameDecoder = { isAvailable, frameAt };

async function load(): Promise<WebCodecs> {
  return (await import(packageName)) as WebCodecs;
}

async function isAvailable(): Promise<boolean> {
  try {
    return typeof (await load()).Mp4Demuxer === "function";
  } catch {
    return false; // not installed, or without a binary for this platform
  }
}

async function frameAt(path: string, seconds: number): Promise<RgbImage | undefined> {
  const { Mp4Demuxer, VideoDecoder } = await load();
  let failure: Error | undefined;
  const fail = (error: Error) => {
    failure ??= error;
  };
  const chunks: Chunk[] = [];
  const stamps: number[] = [];
  let latest: Frame | undefined;
  let isThere = false;
  const wanted_us = seconds * 1e6;
  const demuxer = new Mp4Demuxer({ videoOutput: (chunk) => chunks.push(chunk), error: fail });
  let count = 0;
  const output = (frame: Frame) => {
    if (isThere) return frame.close();
    latest?.close();
    latest = frame;
    // Frames come in the order in which they are shown, but with the timestamps of the order in which they were stored.
    isThere = (stamps.sort((a, b) => a - b)[count++] ?? 0) >= wanted_us;
  };
  const decoder = new VideoDecoder({ output, error: fail });
  try {
    await demuxer.load(path);
    decoder.configure(demuxer.videoDecoderConfig ?? {});
    if (seconds > 0) demuxer.seek(wanted_us);
    while (stamps.length < mostPackets && !isThere && !failure) {
      await demuxer.demuxAsync(packetsAtOnce);
      const some = chunks.splice(0);
      if (some.length === 0) break;
      for (const chunk of some) {
        stamps.push(chunk.timestamp);
        decoder.decode(chunk);
      }
    }
    await decoder.flush();
    if (!latest && failure) throw failure;
    return latest && (await lumaOf(latest));
  } finally {
    latest?.close();
    decoder.close();
    demuxer.close();
  }
}

async function lumaOf(frame: Frame): Promise<RgbImage> {
  if (!planar.test(frame.format ?? "")) throw new Error(`its frames are in ${frame.format}, which is not read`);
  const planes = new Uint8Array(frame.allocationSize());
  const [luma] = await frame.copyTo(planes);
  const size = { width: frame.codedWidth, height: frame.codedHeight };
  return greyImage(size, planes.subarray(luma?.offset ?? 0), luma?.stride ?? size.width);
}
