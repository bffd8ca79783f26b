// Runs in the threads of the pool that workers.ts owns: one function per task, each a plain function elsewhere.
// Knows how results are handed over. Errors cross as values, because only the message of a thrown one would arrive.

import { readlinkSync } from "node:fs";
import { setPriority } from "node:os";
import { basename } from "node:path";
import { Tinypool } from "tinypool";
import type { RgbImage } from "../engine/images.js";
import type { ReferenceLimits } from "../engine/references.js";
import { plainError } from "../errors.js";
import { type EncodeOptions, encodeImage } from "./encode.js";
import type { DetectOptions, Marks } from "./marks/detect.js";
import { decodeAnyReference } from "./references.js";
import { type Outcome, ownBytes } from "./transfer.js";

export async function encodeImageTask(task: { image: RgbImage; options: EncodeOptions }): Promise<Outcome<Uint8Array>> {
  try {
    const value = ownBytes(await encodeImage(task.image, task.options));
    return moved({ value }, value.buffer);
  } catch (error) {
    return { error: plainError(error) };
  }
}

export async function decodeReferenceTask(task: {
  bytes: Uint8Array;
  limits: ReferenceLimits;
}): Promise<Outcome<RgbImage>> {
  try {
    const { width, height, data } = await decodeAnyReference(task.bytes, task.limits);
    const own = ownBytes(data);
    return moved({ value: { width, height, data: own } }, own.buffer);
  } catch (error) {
    return { error: plainError(error) };
  }
}

export async function detectMarksTask(task: { bytes: Uint8Array; options: DetectOptions }): Promise<Outcome<Marks>> {
  try {
    lowerThread();
    const { detectMarks } = await import("./marks/detect.js");
    return { value: await detectMarks(task.bytes, task.options) };
  } catch (error) {
    return { error: plainError(error) };
  }
}

/** A quarter of what others get of a processor that is not enough for all. */
const lowered = 5;

/** Has this thread leave the processor to others, who draw. Of single threads only Linux knows how urgent they are. */
function lowerThread(): void {
  try {
    const thread = Number(basename(readlinkSync("/proc/thread-self"))); // PROCESS/task/THREAD
    if (process.platform === "linux") setPriority(thread, lowered);
  } catch {
    // not on this system, or it does not let it
  }
}

/** A result whose memory is handed over, as the pool's protocol wants it: the caller gets `result`. */
function moved<T extends object>(result: T, buffer: ArrayBuffer): T {
  const { transferableSymbol, valueSymbol } = Tinypool;
  return Tinypool.move({ [transferableSymbol]: [buffer], [valueSymbol]: result } as never) as unknown as T;
}
