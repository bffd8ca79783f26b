// A lock file that keeps two servers off one folder. Knows processes and one file, not what the folder is for.
// A lock outlives a killed process, and its pid may since belong to another one (in a container often to the very next
// server): so it also holds when that process began, where the system tells. A pid means nothing elsewhere, in another
// container or on another machine with the same volume: there a holder shows that it lives by writing its lock anew.

import { randomBytes } from "node:crypto";
import { constants, readFileSync, readlinkSync } from "node:fs";
import { copyFile, link, open, readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DaybreakError, throwIfAborted } from "../errors.js";

const lockName = "lock";
/** Taking over a dead server's lock can be disturbed by another one that does the same. */
const attempts = 5;
/** How often a lock is written anew, and after how long without that its holder counts as dead. */
const beat_ms = 5000;
const lease_ms = 15_000;
const lookAgain_ms = 250;
/** Every lock has the same size: a dead one is written over in place, which a full disk allows. */
const lockBytes = 512;
/** The folders that this process holds: a pid cannot tell two stores of one process apart. */
const heldFolders = new Set<string>();

/** `where`: what the pid is a pid of. */
type Holder = { pid: number; began: string | null; where: string };

/**
 * Takes the lock of an existing folder. Returns the function that gives it back. Takes up to 15 s where a server in
 * another container, or on another machine, did not give it back.
 * @param onLost told, once, when another server has taken the lock because this one did not move for so long
 * @param signal aborted: it is no longer waited for
 * Errors: `media.folder_in_use`; `request.cancelled`; those of the file system as they come.
 */
export async function lockFolder(
  folder: string,
  onLost: (error: DaybreakError) => void = () => undefined,
  signal?: AbortSignal,
): Promise<() => Promise<void>> {
  const real = await realpath(folder);
  if (heldFolders.has(real)) throw inUse(folder, undefined);
  heldFolders.add(real);
  const path = join(real, lockName);
  const own = join(real, `tmp-${randomBytes(16).toString("hex")}`);
  const text = lockText({ pid: process.pid, began: processBegin(process.pid), where: whereabouts() });
  try {
    for (let attempt = 1; ; attempt++) {
      const other = await readFile(path, "utf8").catch(absent);
      const holder = other === undefined ? undefined : parseHolder(other);
      if ((holder && (await isAlive(holder, path, signal))) || attempt > attempts) throw inUse(folder, holder);
      if (other === undefined) await writeFile(own, text, { flag: "wx", mode: 0o600 });
      else if (!(await takesOver(path, other, own, text))) continue;
      if (await takes(own, path)) break;
      await rm(own, { force: true });
    }
  } catch (error) {
    heldFolders.delete(real);
    throw error;
  } finally {
    await rm(own, { force: true }).catch(() => undefined); // a temporary file, which the next start removes
  }
  const stop = await keepBeating(path, text, () => onLost(inUse(folder, undefined)));
  return async () => {
    await stop();
    heldFolders.delete(real);
  };
}

/** Writes the lock anew every few seconds. Returns what ends that and removes the lock, if it is still this one. */
async function keepBeating(path: string, text: string, onLost: () => void): Promise<() => Promise<void>> {
  const file = await open(path, "r+");
  let beating: Promise<void> = Promise.resolve();
  const beat = async () => {
    const found = await readFile(path, "utf8").catch(absent);
    // Whoever clears up in the folder by hand does not mean to end the server.
    if (found === undefined) await writeFile(path, text, { flag: "wx", mode: 0o600 });
    else if (found === text) await file.write(text, 0);
    else {
      clearInterval(timer);
      onLost();
    }
  };
  const timer = setInterval(() => {
    beating = beat().catch(() => undefined); // tried again at the next beat; a lock that stands still is only weaker
  }, beat_ms).unref();
  return async () => {
    clearInterval(timer);
    await beating;
    await file.close();
    const found = await readFile(path, "utf8").catch(absent);
    // On a disk that has become read-only it stays, as if this process had been killed.
    if (found === text) await rm(path, { force: true }).catch(() => undefined);
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

/**
 * Makes this server's text of the dead lock, under the name `own`, if that still says `text`: renamed first, so that
 * only one of two servers gets it. Written over in place, because a full disk may have no room for another file.
 */
async function takesOver(path: string, other: string, own: string, text: string): Promise<boolean> {
  const moved = await rename(path, own).then(() => true, absent);
  if (!moved) return false;
  if ((await readFile(own, "utf8")) !== other) {
    await takes(own, path); // another server's, taken meanwhile
    await rm(own, { force: true });
    return false;
  }
  const file = await open(own, "r+");
  try {
    await file.write(text, 0);
    await file.truncate(lockBytes);
  } finally {
    await file.close();
  }
  return true;
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

function lockText(holder: Holder): string {
  return JSON.stringify(holder).padEnd(lockBytes);
}

function parseHolder(text: string): Holder | undefined {
  try {
    const { pid, began, where } = JSON.parse(text);
    if (!Number.isInteger(pid) || pid <= 0) return undefined;
    // Version 0.1 did not say where: its locks are judged as if they were from here.
    return { pid, began: asText(began) ?? null, where: asText(where) ?? whereabouts() };
  } catch {
    return undefined; // this program did not write it whole: nobody holds it
  }
}

function asText(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

async function isAlive(holder: Holder, path: string, signal: AbortSignal | undefined): Promise<boolean> {
  if (holder.where !== whereabouts()) return isBeating(path, signal);
  if (holder.pid === process.pid) return false; // this process' own locks are in `heldFolders`
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const began = processBegin(holder.pid);
  return began === null || holder.began === null || began === holder.began;
}

/** Whether a lock is written while one looks, or goes: no two clocks are compared, which may differ. */
async function isBeating(path: string, signal: AbortSignal | undefined): Promise<boolean> {
  const written = () => stat(path).then(({ mtimeMs }) => mtimeMs, absent);
  const first = await written();
  for (const until = performance.now() + lease_ms; performance.now() < until; ) {
    await sleep(lookAgain_ms);
    throwIfAborted(signal, "waiting for the media folder");
    const now = await written();
    if (now === undefined) return false;
    if (now !== first) return true;
  }
  return false;
}

/** What pids count in: a boot of a system and a namespace of it, such as a container's; else the machine's name. */
function whereabouts(): string {
  try {
    return `${bootId()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return encodeURIComponent(hostname()); // not Linux
  }
}

function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

/** When a process began, as the system counts it; null where it does not tell. */
function processBegin(pid: number): string | null {
  try {
    const status = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Field 22, counted behind the program's name, which may hold blanks and parentheses.
    return `${bootId()} ${status.slice(status.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    return null; // not Linux, or not allowed: then the pid alone decides
  }
}

function inUse(folder: string, holder: Holder | undefined): DaybreakError {
  const isHere = holder?.where === whereabouts();
  return new DaybreakError(
    "media.folder_in_use",
    `got the media folder ${folder}, which ${isHere ? `process ${holder.pid}` : "another server"} uses, ` +
      "expected one of this server's own: stop the other one, or choose another folder with --data-dir",
  );
}
