// A cache of the user's without anything that was measured or drawn; the software driver that set-up keeps there is found.

import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { temporaryFolder } from "./temporary-folder.js";

/** The cache when the tests began. */
export const realCache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");

/** A folder for XDG_CACHE_HOME. */
export function emptyCache(): string {
  const { path } = temporaryFolder();
  mkdirSync(join(path, "daybreak"));
  const driver = join(realCache, "daybreak", "software-driver");
  if (existsSync(driver)) symlinkSync(driver, join(path, "daybreak", "software-driver"));
  return path;
}
