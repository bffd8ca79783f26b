// A lock file that keeps two servers off one folder. Knows processes and one file, not what the folder is for.
// A lock outlives a killed process, and its pid may since belong to another one (in a container often to the very next
// server): so it also holds when that process began, where the system tells.

import { randomBytes } from "node:crypto";
import { constants, readFileSync } from "node:fs";
import { copyFile, link, readFile, realpath, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DaybreakError } from "../errors.js";

const lockName = "lock";
/** Taking over a dead server's lock can be disturbed by another one that does the same. */
const attempts = 5;
/** The folders that this process holds: a pid cannot tell two stores of one process apart. */
const heldFolders = new Set<string>();

type Holder = { pid: number; began: string | null };

/**
 * Takes the lock of an existing folder. Returns the function that gives it back.
 * Errors: `media.folder_in_use`; those of the file system as they come.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const real = await realpath(folder);
  if (heldFolders.has(real)) throw inUse(folder, process.pid);
  heldFolders.add(real);
  const path = join(real, lockName);
  const own = join(real, `tmp-${randomBytes(16).toString("hex")}`);
  try {
    const holder: Holder = { pid: process.pid, began: processBegin(process.pid) };
    await writeFile(own, JSON.stringify(holder), { flag: "wx", mode: 0o600 });
    for (let attempt = 1; !(await takes(own, path)); attempt++) {
      const other = await readFile(path, "utf8").catch(absent);
      if (other === undefined) continue;
      if (isAlive(parseHolder(other)) || attempt === attempts) throw inUse(folder, parseHolder(other)?.pid);
      await removeDead(path, other);
    }
  } catch (error) {
    heldFolders.delete(real);
    throw error;
  } finally {
    await rm(own, { force: true });
  }
  return async () => {
    await rm(path, { force: true });
    heldFolders.delete(real);
  };
}

/** A link appears whole and only where there is none yet: no reader sees a lock without its pid. */
async function takes(own: string, path: string): Promise<boolean> {
  try {
    await link(own, path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" || code === "ENOENT") return false; // ENOENT: the holder of the folder clears up in it
    if (code !== "EPERM" && code !== "ENOTSUP" && code !== "ENOSYS") throw error;
  }
  // a file system without links
  return copyFile(own, path, constants.COPYFILE_EXCL).then(
    () => true,
    (error) => {
      if (error.code === "EEXIST") return false;
      throw error;
    },
  );
}

/** Removes the lock if it still says `text`: renamed first, so that only one of two servers removes it. */
async function removeDead(path: string, text: string): Promise<void> {
  const aside = join(path, "..", `tmp-${randomBytes(16).toString("hex")}`);
  const moved = await rename(path, aside).then(() => true, absent);
  if (!moved) return;
  if ((await readFile(aside, "utf8")) !== text) await takes(aside, path); // another server's, taken meanwhile
  await rm(aside, { force: true });
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

function parseHolder(text: string): Holder | undefined {
  try {
    const { pid, began } = JSON.parse(text);
    return Number.isInteger(pid) && pid > 0 ? { pid, began: typeof began === "string" ? began : null } : undefined;
  } catch {
    return undefined; // this program did not write it whole: nobody holds it
  }
}

function isAlive(holder: Holder | undefined): boolean {
  if (!holder || holder.pid === process.pid) return false; // this process' own locks are in `heldFolders`
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const began = processBegin(holder.pid);
  return began === null || holder.began === null || began === holder.began;
}

/** When a process began, as the system counts it; null where it does not tell. */
function processBegin(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    // Field 22, counted behind the program's name, which may hold blanks and parentheses.
    return `${boot} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    return null; // not Linux, or not allowed: then the pid alone decides
  }
}

function inUse(folder: string, pid: number | undefined): DaybreakError {
  return new DaybreakError(
    "media.folder_in_use",
    `got the media folder ${folder}, which ${pid === undefined ? "another server" : `process ${pid}`} uses, ` +
      "expected one of this server's own: stop the other one, or choose another folder with --data-dir",
  );
}
