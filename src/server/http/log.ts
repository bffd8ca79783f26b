// Where log lines go: stderr, in the background, several at a time, the last ones when the process ends. Knows no line's
// content. A log that cannot be written stops neither the serving nor the end of the process: its lines are dropped.
// (The library's own destination ends the process on a full disk, or repeats the last write without end.)

import { write, writeSync } from "node:fs";
import type { DestinationStream } from "pino";
import { visibleText } from "../../text.js";

const stderr = 2;
/** Characters of lines that wait to be written; further lines are dropped. */
const maxWaiting = 4 * 1024 * 1024;
/** For pipes that are full and do not block. */
const retry_ms = 50;
/** A write that takes longer has a reader that has stopped: the end of the process does not wait for it. */
const stuck_ms = 1000;

/** Hands lines on without what a terminal or a viewer would obey; as lines of JSON they mean the same. */
export function visibleLines(destination: DestinationStream): DestinationStream {
  return { write: (line) => destination.write(visibleText(line)) };
}

export function stderrLog(): DestinationStream {
  let waiting = "";
  let isScheduled = false;
  let writingSince: number | undefined;

  const writeWaiting = () => {
    isScheduled = false;
    if (writingSince !== undefined || waiting === "") return;
    writingSince = performance.now();
    const bytes = Buffer.from(waiting);
    waiting = "";
    writeBytes(bytes);
  };
  const writeBytes = (bytes: Buffer) =>
    write(stderr, bytes, (error, count) => {
      if (error?.code === "EAGAIN") setTimeout(() => writeBytes(bytes), retry_ms).unref();
      else if (!error && count < bytes.length) writeBytes(bytes.subarray(count));
      else {
        writingSince = undefined;
        writeWaiting();
      }
    });
  process.once("exit", () => {
    if (writingSince !== undefined && performance.now() - writingSince > stuck_ms) return;
    try {
      writeSync(stderr, waiting);
    } catch {
      // nobody reads it, or nothing can be written: the process ends all the same
    }
  });

  return {
    write(line) {
      if (waiting.length + line.length <= maxWaiting) waiting += line;
      if (isScheduled || writingSince !== undefined) return;
      isScheduled = true;
      setImmediate(writeWaiting);
    },
  };
}
