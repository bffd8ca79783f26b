// This side of a video's thread: commands go there, one answer to each comes back, in order.
// Knows messages and the life of one thread, not encoders. A video that ends early, for whatever reason, leaves no file.

import { rm } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { type DaybreakError, errorFromPlain, plainError } from "../errors.js";
import type { VideoOptions, VideoWriter } from "./mp4.js";
import { closedError, ownBytes, type VideoCommand, type VideoMessage } from "./transfer.js";

/** Frames that are on their way or being encoded. */
const framesInFlight = 2;

type Waiting = { resolve(encoder: string): void; reject(error: unknown): void };

/** A running thread. Keeps the process alive only while an answer is awaited. */
type VideoThread = {
  /** The answer to what the thread does first, opening the video. */
  opened: Promise<string>;
  command(message: VideoCommand, transferList?: ArrayBuffer[]): Promise<string>;
  terminate(): Promise<unknown>;
};

function startThread(file: string, options: VideoOptions): VideoThread {
  const thread = new Worker(file, { workerData: options, execArgv: [] }); // flags of the program are not for it
  const waiting: Waiting[] = [];
  let death: DaybreakError | undefined;
  const die = (error: DaybreakError) => {
    death ??= error;
    for (const { reject } of waiting.splice(0)) reject(death);
  };
  thread.on("message", (message: VideoMessage) => {
    const { resolve, reject } = waiting.shift()!;
    if ("value" in message) resolve(message.value);
    else reject(errorFromPlain(message.error));
    if (waiting.length === 0) thread.unref();
  });
  thread.on("error", (error) => die(errorFromPlain(plainError(error))));
  thread.on("exit", () => die(closedError()));
  const answer = () =>
    new Promise<string>((resolve, reject) => {
      if (death) return reject(death);
      waiting.push({ resolve, reject });
      thread.ref();
    });
  return {
    opened: answer(),
    command: (message, transferList = []) => {
      thread.postMessage(message, transferList);
      return answer();
    },
    terminate: () => thread.terminate(),
  };
}

/**
 * Opens a video in a thread of its own.
 * @param file the thread's program
 * @param onEnd told once when the video is over, however it ended
 */
export async function openVideoThread(file: string, options: VideoOptions, onEnd: () => void): Promise<VideoWriter> {
  const thread = startThread(file, options);
  const writes = new Set<Promise<unknown>>();
  let failure: unknown;
  let ending: Promise<void> | undefined;

  const giveUp = async () => {
    await thread.command({ command: "abort" }).catch(() => {}); // a dead thread cannot
    await thread.terminate();
    await rm(options.path, { force: true });
  };
  const end = (how: () => Promise<unknown>) => {
    ending ??= how().then(onEnd, onEnd);
    return ending;
  };
  const check = async () => {
    if (failure === undefined && !ending) return;
    await end(giveUp);
    throw failure ?? closedError();
  };
  const noteFailure = (error: unknown) => {
    failure ??= error;
  };

  const encoder = await thread.opened.catch(noteFailure);
  await check();
  return {
    encoder: encoder as string,
    write: async (frame) => {
      await check();
      const data = ownBytes(frame.data);
      const { width, height } = frame;
      const written: Promise<unknown> = thread
        .command({ command: "write", width, height, data }, [data.buffer])
        .catch(noteFailure)
        .finally(() => writes.delete(written));
      writes.add(written);
      while (writes.size >= framesInFlight) await Promise.race(writes);
      await check();
    },
    finish: async () => {
      await Promise.all(writes);
      await check();
      await thread.command({ command: "finish" }).catch(noteFailure);
      await check();
      await end(() => thread.terminate());
    },
    abort: () => end(giveUp),
  };
}
