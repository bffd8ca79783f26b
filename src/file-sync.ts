// Waits until a file's bytes, or a folder's names, are on the disk. Knows files that are open, not what they are for.
// By the file's number: `FileHandle.sync` throws where Yarn's Plug'n'Play has put its own handles in the place of Node's.

import { fsync } from "node:fs";
import type { FileHandle } from "node:fs/promises";

/** Like `file.sync()`. Errors: those of the file system. */
export function syncFile(file: FileHandle): Promise<void> {
  return new Promise((resolve, reject) => {
    fsync(file.fd, (error) => (error ? reject(error) : resolve()));
  });
}
