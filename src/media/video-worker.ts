// The thread of one video: takes frames and hands them to the encoder, in order. Ends with the file complete or gone.
// Knows messages, not encoders. Frames that arrive while one is encoded wait in the thread's queue of messages.

import { parentPort, workerData } from "node:worker_threads";
import { assert, plainError } from "../errors.js";
import { openVideo, type VideoOptions, type VideoWriter } from "./mp4.js";
import type { VideoCommand, VideoMessage } from "./transfer.js";

assert(parentPort, "got no port, expected to run in a thread");
const port = parentPort;
const say = (message: VideoMessage) => port.postMessage(message);

const opened = openVideo(workerData as VideoOptions);
/** The work so far; commands are done one after the other. */
let turn = answered(() => opened);

async function answered(work: () => Promise<VideoWriter>): Promise<void> {
  try {
    say({ value: (await work()).encoder });
  } catch (error) {
    say({ error: plainError(error) });
  }
}

port.on("message", (message: VideoCommand) => {
  turn = turn.then(() => answered(() => execute(message)));
});

async function execute(message: VideoCommand): Promise<VideoWriter> {
  const video = await opened;
  if (message.command === "write") await video.write(message);
  else if (message.command === "finish") await video.finish();
  else await video.abort();
  return video;
}
