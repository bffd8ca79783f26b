// What goes to the standard streams. Results go to stdout, whole or with an error that says why not. Remarks and errors go
// to stderr; what cannot be said there changes nothing. Knows no text.

import { fstatSync, writeSync } from "node:fs";
import { isatty } from "node:tty";
import { DaybreakError } from "../errors.js";

const stdout = 1;

/**
 * Writes a result to stdout, and resolves when all of it is out, or when its reader has read enough and gone
 * (`daybreak … | head -1`). Errors: `output.unwritable`.
 */
export async function print(text: string): Promise<void> {
  try {
    if (isFile()) writeWhole(Buffer.from(text));
    else await new Promise<void>((done, fail) => process.stdout.write(text, (error) => (error ? fail(error) : done())));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EPIPE") return;
    const message = `the standard output cannot be written (${(cause as Error).message}): make room where it goes, or send it elsewhere`;
    throw new DaybreakError("output.unwritable", message, { cause });
  }
}

/** Writes a line to stderr, and resolves when it is out, or cannot be. */
export function remark(text: string): Promise<void> {
  return new Promise((done) => process.stderr.write(text, () => done()));
}

/** Streams report what they could not write in an event too, which would end the process; {@link print} has said it. */
export function tellOnce(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
}

/** A file, or a device such as /dev/null: of those Node's stream takes a write that was cut short for a whole one. */
function isFile(): boolean {
  if (isatty(stdout)) return false;
  const about = fstatSync(stdout);
  return about.isFile() || about.isCharacterDevice();
}

function writeWhole(bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length; ) written += writeSync(stdout, bytes, written);
}
