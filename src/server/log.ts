// Where log lines go: stderr, written in the background and flushed when the process ends. Knows no line's content.
// A log that cannot be written is no reason to stop serving: its lines are dropped, and memory stays bounded.

import { type DestinationStream, pino } from "pino";

/** Of lines that nobody takes. */
const maxWaitingBytes = 4 * 1024 * 1024;

export function stderrLog(): DestinationStream {
  const destination = pino.destination({ dest: 2, sync: false, maxLength: maxWaitingBytes });
  // A reader that has gone (EPIPE), or a file on a full disk; the library itself ends the process for the second.
  destination.on("error", () => undefined);
  return destination;
}
