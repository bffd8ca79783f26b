// Single frames out of a video that somebody made, as pictures of their brightness: for looking at them, not for showing.
// Owns the choice of what decodes: the program ffmpeg where it is on the PATH, else the optional package @napi-rs/webcodecs.

import type { RgbImage } from "../engine/images.js";
import { ffmpegFrames } from "./frames-ffmpeg.js";
import { webcodecsFrames } from "./frames-webcodecs.js";
import type { VideoFacts } from "./mp4-boxes.js";

/** A decoder. What it throws says in a few words why there are no frames. */
export type FrameDecoder = {
  isAvailable(): Promise<boolean>;
  /** The frame that is shown at a time in seconds; undefined: none is. */
  frameAt(path: string, seconds: number): Promise<RgbImage | undefined>;
};

const decoders: readonly FrameDecoder[] = [ffmpegFrames, webcodecsFrames];
/** What was found out, once per thread. */
let chosen: Promise<FrameDecoder | undefined> | undefined;

/** What decodes here; undefined: nothing. */
export function frameDecoder(): Promise<FrameDecoder | undefined> {
  chosen ??= choose();
  return chosen;
}

async function choose(): Promise<FrameDecoder | undefined> {
  for (const decoder of decoders) if (await decoder.isAvailable()) return decoder;
  return undefined;
}

/**
 * Frames spread evenly over a video, each decoded when it is asked for: the first, then the others that can be decoded.
 * Throws what the decoder throws of the first, or an error that says that there is none.
 */
export async function* spreadFrames(
  decoder: FrameDecoder,
  path: string,
  { seconds }: VideoFacts,
  count: number,
): AsyncGenerator<RgbImage> {
  const first = await decoder.frameAt(path, 0);
  if (!first) throw new Error("it has no frame");
  yield first;
  for (let i = 1; i < count && seconds > 0; i++) {
    const frame = await decoder.frameAt(path, (seconds * i) / count).catch(() => undefined); // one tells enough
    if (frame?.width === first.width && frame.height === first.height) yield frame;
  }
}
