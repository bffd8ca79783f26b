// Videos: the choice of an encoder, and what holds for all of them. Knows frames and a path, not what is drawn.
// A video that fails leaves no file, whichever encoder it was and whenever it failed.

import { rm } from "node:fs/promises";
import { assert, DaybreakError } from "../errors.js";
import { writeError } from "./asset-files.js";
import { markPixels, markVideo } from "./marks/mark.js";
import { ffmpeg } from "./mp4-ffmpeg.js";
import type { VideoEncoderKind, VideoOptions, VideoWriter } from "./mp4-file.js";
import { wasm } from "./mp4-wasm.js";
import { webcodecs } from "./mp4-webcodecs.js";

export type { VideoEncoderName, VideoOptions, VideoWriter } from "./mp4-file.js";

/** From the first choice to the last: the fastest first. */
const kinds: readonly VideoEncoderKind[] = [webcodecs, ffmpeg, wasm];
/** What was found out, once per thread: it costs starting a program. */
const availability = new Map<VideoEncoderKind, Promise<boolean>>();

function isAvailable(kind: VideoEncoderKind): Promise<boolean> {
  const known = availability.get(kind) ?? kind.isAvailable();
  availability.set(kind, known);
  return known;
}

/** The names of the encoders that work here, in the order of their choice. */
export async function videoEncoders(): Promise<string[]> {
  const found = await Promise.all(kinds.map(isAvailable));
  return kinds.filter((_, i) => found[i]).map(({ name }) => name);
}

async function choose(wanted: VideoOptions["encoder"]): Promise<VideoEncoderKind> {
  const candidates = kinds.filter(({ name }) => wanted === undefined || name === wanted);
  for (const kind of candidates) if (await isAvailable(kind)) return kind;
  throw new DaybreakError(
    "media.encoder_missing",
    `got a video to write and no encoder ${wanted ?? "for it"}, expected one: ` +
      candidates.map(({ name, remedy }) => `${name}: ${remedy}`).join("; or "),
  );
}

/**
 * Begins an MP4 file: H.264, BT.709, its index before its pictures.
 * Errors, of this and of the writer: `media.encoder_missing`, `media.encoder_failed`, `media.storage_full`,
 *   `media.unwritable`, `marks.failed`. After any of them the file is gone.
 */
export async function openVideo(options: VideoOptions): Promise<VideoWriter> {
  const { width, height, framesPerSecond } = options;
  const isSide = (side: number) => Number.isInteger(side) && side > 0 && side % 16 === 0;
  assert(isSide(width) && isSide(height), `got a video of ${width}×${height} pixels, expected multiples of 16`);
  assert(
    Number.isInteger(framesPerSecond) && framesPerSecond > 0,
    `got ${framesPerSecond} frames per second, expected a whole number`,
  );
  const kind = await choose(options.encoder);
  const writer = await kind.open(options).catch((error) => {
    throw videoError(error, kind.name);
  });
  return guarded(writer, options);
}

/** The writer with its order of calls checked, its file marked, its errors named and its file removed when it fails. */
function guarded(writer: VideoWriter, { path, width, height, marks }: VideoOptions): VideoWriter {
  let frames = 0;
  let isOver = false;
  const remove = async () => {
    isOver = true;
    await writer.abort();
    await rm(path, { force: true });
  };
  const complete = async () => {
    await writer.finish();
    await markVideo(path, marks);
  };
  const orRemove = async (work: Promise<void>) => {
    try {
      await work;
    } catch (error) {
      await remove().catch(() => {}); // the first error is the one to report
      throw videoError(error, writer.encoder);
    }
  };
  return {
    encoder: writer.encoder,
    write: async (frame) => {
      assert(!isOver, "got a frame for a video that is over");
      assert(
        frame.width === width && frame.height === height,
        `got a frame of ${frame.width}×${frame.height} pixels for a video of ${width}×${height}`,
      );
      frames++;
      await orRemove(markPixels(frame, marks).then((marked) => writer.write(marked)));
    },
    finish: async () => {
      assert(!isOver && frames > 0, "got the end of a video that is over or has no frames");
      await orRemove(complete());
      isOver = true;
    },
    abort: async () => {
      if (!isOver) await remove();
    },
  };
}

function videoError(error: unknown, encoder: string): unknown {
  const named = writeError(error);
  if (named instanceof DaybreakError) return named;
  const reason = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim();
  return new DaybreakError(
    "media.encoder_failed",
    `got "${reason}" from the video encoder ${encoder}, expected a video: try again, or use another encoder`,
    { cause: error },
  );
}
