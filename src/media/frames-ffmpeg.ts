// Single frames through the program ffmpeg, one run a frame: it finds the place in the file by itself. It is given nothing
// but that one file, little time, and no more pixels than pictures may have. Knows no watermark.

import { spawn } from "node:child_process";
import { constants, setPriority } from "node:os";
import type { RgbImage } from "../engine/images.js";
import { maxReferencePixels } from "../engine/references.js";
import type { FrameDecoder } from "./video-frames.js";
import { greyImage } from "./yuv.js";

/** Of the processor's time, which ffmpeg limits itself: it goes on when the thread that started it is ended. */
const limit_s = 30;
const errorTextLimit = 2048;
/** Before its pixels a frame in PGM has a head of three short lines. */
const mostHeadBytes = 64;

export const ffmpegFrames: FrameDecoder = {
  isAvailable: async () => (await run(["-version"]).catch(() => undefined)) !== undefined,
  frameAt,
};

async function frameAt(path: string, seconds: number): Promise<RgbImage | undefined> {
  const input = [
    ...["-protocol_whitelist", "file", "-f", "mov", "-threads", "1", "-max_pixels", String(maxReferencePixels)],
    ...["-noautorotate", "-ss", seconds.toFixed(3), "-i", `file:${path}`],
  ];
  const output = ["-map", "0:V:0", "-frames:v", "1", "-f", "image2pipe", "-c:v", "pgm", "-pix_fmt", "gray", "pipe:1"];
  return readPgm(await run(["-nostdin", "-loglevel", "error", "-timelimit", String(limit_s), ...input, ...output]));
}

/** What ffmpeg writes to its output. Throws what it says of its failure. */
function run(options: readonly string[]): Promise<Buffer> {
  const child = spawn("ffmpeg", ["-hide_banner", ...options], { stdio: ["ignore", "pipe", "pipe"], windowsHide: true });
  const chunks: Buffer[] = [];
  let length = 0;
  let errorText = "";
  child.stdout.on("data", (chunk: Buffer) => {
    length += chunk.length;
    if (length > maxReferencePixels + mostHeadBytes) child.kill("SIGKILL");
    else chunks.push(chunk);
  });
  child.stderr.on("data", (text) => {
    errorText = (errorText + text).slice(-errorTextLimit);
  });
  lower(child.pid);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status, signal) => {
      if (status === 0) return resolve(Buffer.concat(chunks));
      const words = errorText.split("\n").filter((line) => line.trim() !== "");
      const last = words
        .at(-1)
        ?.replace(/^.*?file:.*?: /, "")
        .trim();
      reject(new Error(last || (signal ? "it takes too long" : `ffmpeg ended with status ${status}`)));
    });
  });
}

/** Nobody waits for it who draws. */
function lower(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // it has ended already, or the system does not let it
  }
}

/** Source: netpbm's pgm(5). */
function readPgm(bytes: Buffer): RgbImage | undefined {
  const head = /^P5\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.toString("latin1", 0, mostHeadBytes));
  if (!head) return undefined;
  const [width, height] = [Number(head[1]), Number(head[2])];
  const luma = bytes.subarray(head[0].length);
  return luma.length >= width * height ? greyImage({ width, height }, luma) : undefined;
}
