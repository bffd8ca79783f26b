// Writes result files so that each is whole or absent: into a temporary file beside it, to disk, then renamed.
// Owns what may be written where, and finds out before the work begins. Knows no format but its extension.

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { access, constants, open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DaybreakError } from "../errors.js";
import { syncFile } from "../file-sync.js";

/**
 * Checks that `path` ends in `extension` and can be written; nothing stays behind.
 * Errors: `output.format_unsupported`, `output.unwritable`.
 */
export async function checkOutput(option: string, path: string, extension: ".png" | ".safetensors"): Promise<void> {
  if (!path.toLowerCase().endsWith(extension)) {
    throw new DaybreakError(
      "output.format_unsupported",
      `got --${option} "${path}", expected a name that ends in ${extension}`,
    );
  }
  const existing = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw unwritable(path, error);
  });
  if (existing?.isDirectory()) throw refuse(path, "it is a folder: give a file's name");
  // Renaming over a device or a pipe would replace it.
  if (existing && !existing.isFile()) throw refuse(path, "it is no regular file: give another name");
  try {
    if (existing) await access(path, constants.W_OK);
    // Permissions, mounts and quotas are only known for sure by trying.
    const probe = temporaryName(path);
    await (await open(probe, "wx")).close();
    await rm(probe);
  } catch (error) {
    throw unwritable(path, error as NodeJS.ErrnoException);
  }
}

/**
 * Writes files, all or none as far as a file system allows: no final name exists before all bytes are on disk. Existing
 * files are replaced.
 * Errors: `output.unwritable`; then no temporary file is left.
 */
export async function writeFiles(files: readonly { path: string; bytes: Uint8Array }[]): Promise<void> {
  const written: { temporary: string; target: string }[] = [];
  let current = "";
  try {
    for (const { path, bytes } of files) {
      current = path;
      const target = await realpath(path).catch(() => path); // a link stays a link to the new file
      const temporary = temporaryName(target);
      written.push({ temporary, target });
      const handle = await open(temporary, "wx");
      try {
        await handle.writeFile(bytes);
        await syncFile(handle);
      } finally {
        await handle.close();
      }
    }
    for (const { temporary, target } of written) {
      current = target;
      await rename(temporary, target);
    }
    for (const folder of new Set(written.map(({ target }) => dirname(target)))) await syncFolder(folder);
  } catch (error) {
    await Promise.all(written.map(({ temporary }) => rm(temporary, { force: true })));
    throw unwritable(current, error as NodeJS.ErrnoException);
  }
}

/** Beside the file itself: a rename works only within one file system. */
function temporaryName(path: string): string {
  return join(dirname(path), `.daybreak-${process.pid}-${randomBytes(6).toString("hex")}.tmp`);
}

/** Makes the renames last through a power failure, where the system can. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, "r");
    await syncFile(handle).finally(() => handle.close());
  } catch {
    // Windows opens no folders, and some file systems sync none; the files themselves are whole
  }
}

function refuse(path: string, why: string, cause?: unknown): DaybreakError {
  return new DaybreakError("output.unwritable", `${path} cannot be written: ${why}`, { cause });
}

function unwritable(path: string, error: NodeJS.ErrnoException): DaybreakError {
  const folder = dirname(path);
  const reasons: Record<string, string> = {
    ENOENT: existsSync(folder)
      ? `no files can be made in ${folder}: choose another`
      : `there is no folder ${folder}: create it`,
    ENOTDIR: `${folder} is no folder: give another path`,
    EACCES: "permission denied: choose another folder",
    EPERM: "the system does not permit it: choose another folder",
    EROFS: "the file system is read-only: choose another folder",
    ENOSPC: "the disk is full: make room or choose another folder",
    EFBIG: "the system lets no file become so large: raise `ulimit -f`, or choose another file system",
    ENAMETOOLONG: "the name is too long: choose a shorter one",
  };
  return refuse(path, reasons[error.code ?? ""] ?? `${error.message}: choose another folder`, error);
}
