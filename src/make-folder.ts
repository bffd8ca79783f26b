// Makes a folder and those that lead to it. Node's own recursive mkdir never ends where a folder is there, takes no entries
// and calls them absent, as /proc does: a home or a cache that some variable puts there would stop a program without a word.

import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** Makes `path` with all that is missing above it. Throws the file system's error for the first that cannot be made. */
export function makeFolder(path: string, mode = 0o777): void {
  const missing = [resolve(path)];
  // one that may not be looked into counts as missing: making it says why
  for (let above = dirname(missing[0]!); !existsSync(above) && above !== dirname(above); above = dirname(above)) {
    missing.unshift(above);
  }
  for (const folder of missing) {
    try {
      mkdirSync(folder, { mode });
    } catch (error) {
      if (!isFolder(folder)) throw error; // otherwise it was there, or another process was faster
    }
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
