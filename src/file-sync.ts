// Waits until a file's bytes, or a folder's names, are on the disk. Knows files that are open, not what they are for.
// Yarn's Plug'n'Play puts its own file handles in the place of Node's, and theirs cannot sync: there it goes by the file's
// number, which Node's permissions forbid.

import { fsync } from "node:fs";
import type { FileHandle } from "node:fs/promises";

/** Like `file.sync()`. Errors: those of the file system. */
export function syncFile(file: FileHandle): Promise<void> {
  if (!process.versions.pnp) return file.sync();
  return new Promise((resolve, reject) => {
    fsync(file.fd, (error) => (error ? reject(error) : resolve()));
  });
}
