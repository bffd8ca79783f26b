// H.264 through the program ffmpeg, where one with libx264 is on the PATH. It writes the file by itself.
// Knows one child process per video; frames go through its standard input, which holds them back when it is behind.

import { type ChildProcess, spawn } from "node:child_process";
import type { RgbImage } from "../engine/request.js";
import { DaybreakError } from "../errors.js";
import type { VideoEncoderKind, VideoOptions, VideoWriter } from "./mp4-file.js";
import { rgbToI420 } from "./yuv.js";

const errorTextLimit = 4096;
const detectionLimit_ms = 10_000;
/**
 * A terminal sends its Ctrl-C to the whole group of processes: in a group of its own ffmpeg goes on until its video is
 * finished or given up here. If this process dies it reads the end of its input and ends by itself. Windows would open
 * a window for it.
 */
const ownGroup = { detached: process.platform !== "win32", windowsHide: true };

export const ffmpeg: VideoEncoderKind = {
  name: "ffmpeg",
  remedy: "install an ffmpeg with libx264 and put it on the PATH",
  isAvailable,
  open: async (options) => openFfmpeg(options),
};

/** How a process ended, and the last it said. */
type End = { status: number | null; errorText: string; cause?: Error };

async function isAvailable(): Promise<boolean> {
  const child = spawn("ffmpeg", ["-hide_banner", "-encoders"], {
    ...ownGroup,
    stdio: ["ignore", "pipe", "ignore"],
    timeout: detectionLimit_ms,
  });
  let listing = "";
  child.stdout.on("data", (text) => {
    listing += text;
  });
  const { status } = await ended(child);
  return status === 0 && /\blibx264\b/.test(listing);
}

function ended(child: ChildProcess): Promise<End> {
  let errorText = "";
  child.stderr?.on("data", (text) => {
    errorText = (errorText + text).slice(-errorTextLimit);
  });
  return new Promise((resolve) => {
    child.on("error", (cause) => resolve({ status: null, errorText, cause }));
    child.on("close", (status) => resolve({ status, errorText }));
  });
}

function ffmpegArguments({ path, width, height, framesPerSecond }: VideoOptions): string[] {
  const colours = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"];
  const input = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", `${width}x${height}`, "-r", String(framesPerSecond)];
  const codec = ["-c:v", "libx264", "-crf", "18", "-preset", "fast", "-pix_fmt", "yuv420p"];
  return [
    ...["-hide_banner", "-loglevel", "error", "-y"],
    ...[...input, ...colours, "-i", "pipe:0"],
    ...[...codec, ...colours, "-movflags", "+faststart", "-f", "mp4", `file:${path}`],
  ];
}

function openFfmpeg(options: VideoOptions): VideoWriter {
  const child = spawn("ffmpeg", ffmpegArguments(options), { ...ownGroup, stdio: ["pipe", "ignore", "pipe"] });
  const end = ended(child);
  child.stdin.on("error", () => {}); // it closed its input; its end tells why
  const died = end.then((how) => {
    throw failed(how, options.path);
  });
  died.catch(() => {}); // nobody may be waiting
  const taken = (planes: Uint8Array) =>
    new Promise<void>((resolve, reject) => child.stdin.write(planes, (error) => (error ? reject(error) : resolve())));
  return {
    encoder: "ffmpeg",
    write: async (image: RgbImage) => {
      await Promise.race([taken(rgbToI420(image)).catch(() => died), died]);
    },
    finish: async () => {
      child.stdin.end();
      const how = await end;
      if (how.status !== 0) throw failed(how, options.path);
    },
    abort: async () => {
      child.kill("SIGKILL");
      await end;
    },
  };
}

/** Its own words, without paths: they may leave the server. */
function failed({ status, errorText, cause }: End, path: string): DaybreakError {
  const words = errorText.replaceAll(path, "the video").replace(/\s+/g, " ").trim();
  const what = cause?.message ?? (words || (status === null ? "a signal" : `status ${status}`));
  const isFull = /No space left on device|Disk quota exceeded/.test(words);
  return new DaybreakError(
    isFull ? "media.storage_full" : "media.encoder_failed",
    `got "${what}" from ffmpeg, expected a video: ${isFull ? "free some room on the disk" : "try again, or remove it from the PATH"}`,
    { cause },
  );
}
