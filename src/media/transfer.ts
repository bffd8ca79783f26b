// What crosses between threads, and how: memory is handed over where it can be, instead of copied.
// Knows no task. A view of part of a buffer would take the whole buffer along: such a part is copied first.

import { DaybreakError, type PlainError } from "../errors.js";

/** What a task in another thread ends with. A thrown error would lose its code on the way. */
export type Outcome<T> = { value: T } | { error: PlainError };

/** The same bytes in memory that holds nothing else and can be handed over. */
export function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, byteLength } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength && byteLength > 0) {
    return new Uint8Array(buffer);
  }
  return new Uint8Array(bytes);
}

/** A message from a video's thread: ready with an encoder's name, a frame taken, the file complete, or a failure. */
export type VideoMessage = Outcome<string>;

/** A message to a video's thread; `data` is RGB and handed over. */
export type VideoCommand =
  | { command: "write"; width: number; height: number; data: Uint8Array }
  | { command: "finish" }
  | { command: "abort" };

export function closedError(): DaybreakError {
  return new DaybreakError(
    "media.closed",
    "got a task for media workers or a video that are closed, expected open ones",
  );
}
