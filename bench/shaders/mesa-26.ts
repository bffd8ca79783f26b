// Where Mesa 26's drivers lie, and how they are fetched: into the user's cache, beside the software driver that set-up
// provides. src/setup/mesa-26.mjs does the fetching, in a process of its own.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../src/node/package.js";
import { baseFolders } from "../../src/node/software-driver.js";

/** A folder of drivers, and in it the dynamic loader, the folder of libraries and lavapipe's description: absolute paths. */
export type Mesa26 = { folder: string; loader: string; libraries: string; icd: string };

/** The drivers, if they have been fetched. */
export function mesa26(): Mesa26 | undefined {
  const folder = driversFolder();
  const path = join(folder, "mesa-26.json");
  if (!existsSync(path)) return undefined;
  const { loader, libraries, icd } = JSON.parse(readFileSync(path, "utf8")) as Omit<Mesa26, "folder">;
  return { folder, loader: join(folder, loader), libraries: join(folder, libraries), icd: join(folder, icd) };
}

/** Fetches them, replacing what is there. Throws an Error that says what could not be had. */
export function fetchMesa26(): Mesa26 {
  const script = join(packageRoot(), "src", "setup", "mesa-26.mjs");
  const run = spawnSync(process.execPath, [script, driversFolder()], { encoding: "utf8" });
  const found = mesa26();
  if (run.status !== 0 || !found) throw new Error(run.error?.message ?? run.stderr.trim());
  return found;
}

function driversFolder(): string {
  return join(baseFolders()[0] as string, `mesa-26-${process.arch}`);
}
