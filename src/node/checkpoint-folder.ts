// A checkpoint folder on disk as a CheckpointSource: the only place where weights meet the file system.
// Knows nothing of formats. A file is opened once and kept open, and read by position, never whole. Symbolic links are
// followed, because download caches keep a checkpoint's files as links; FIFOs and devices are refused, since opening
// one can block for ever.

import { type FileHandle, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { type CheckpointSource, staysInside } from "../engine/weights/source.js";
import { DaybreakError } from "../errors.js";

/** `list` looks at the folder and at the folders in it; more files than this is no checkpoint (a home folder, say). */
const maxFiles = 10_000;

export type FolderSource = Required<CheckpointSource> & {
  /** Closes the files; reads that are under way finish first, later ones fail. */
  close(): Promise<void>;
};

/**
 * Opens a checkpoint folder of diffusers' layout (`model_index.json` beside `transformer/`, `vae/`, …).
 * Errors: `model.not_found` if there is no such folder; reading: `model.part_missing`, `file.unreadable`.
 */
export async function folderSource(dir: string): Promise<FolderSource> {
  await checkFolder(dir);
  const files = new Map<string, Promise<{ handle: FileHandle; size: number }>>();
  let closed = false;

  const fileOf = (path: string) => {
    if (closed) throw new DaybreakError("engine.closed", `${path} was asked for after the checkpoint had been closed`);
    let file = files.get(path);
    if (!file) {
      file = openFile(dir, path);
      files.set(path, file);
      file.catch(() => files.delete(path)); // so that a later read tries again and reports its own error
    }
    return file;
  };

  const readInto = async (path: string, begin: number, target: Uint8Array): Promise<number> => {
    const { handle } = await fileOf(path);
    let filled = 0;
    while (filled < target.length) {
      const { bytesRead } = await handle.read(target, filled, target.length - filled, begin + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return filled;
  };

  return {
    list: () => listFiles(dir),
    readInto,
    read: async (path, begin, end) => {
      const { size } = await fileOf(path);
      // The size bounds the allocation: a damaged header may ask for any number of bytes.
      const bytes = new Uint8Array(Math.max(0, Math.min(end, size) - begin));
      return bytes.subarray(0, await readInto(path, begin, bytes));
    },
    close: async () => {
      closed = true;
      const opened = await Promise.allSettled(files.values());
      files.clear();
      await Promise.all(
        opened.map((result) => (result.status === "fulfilled" ? result.value.handle.close() : undefined)),
      );
    },
  };
}

async function checkFolder(dir: string): Promise<void> {
  const info = await stat(dir).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") {
      throw new DaybreakError("model.not_found", `there is no folder ${dir}: give the path of a checkpoint folder`, {
        cause,
      });
    }
    throw new DaybreakError("file.unreadable", `${dir} cannot be read: ${cause.message}`, { cause });
  });
  if (info.isDirectory()) return;
  throw new DaybreakError(
    "model.not_found",
    `${dir} is a file, expected a checkpoint folder of diffusers' layout (model_index.json beside transformer/, vae/, text_encoder/): single-file checkpoints are not read`,
  );
}

async function openFile(dir: string, path: string): Promise<{ handle: FileHandle; size: number }> {
  if (!staysInside(path)) {
    throw new DaybreakError("file.unreadable", `${JSON.stringify(path)} is no path inside the checkpoint ${dir}`);
  }
  const fullPath = join(dir, path);
  try {
    const info = await stat(fullPath);
    if (!info.isFile()) throw new DaybreakError("file.unreadable", `${fullPath} is no regular file`);
    return { handle: await open(fullPath, "r"), size: info.size };
  } catch (cause) {
    if (cause instanceof DaybreakError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") {
      throw new DaybreakError("model.part_missing", `the checkpoint ${dir} has no file ${path}: fetch it`, { cause });
    }
    throw new DaybreakError("file.unreadable", `${fullPath} cannot be read: ${message}`, { cause });
  }
}

/** Regular files in `dir` and in its folders, one level down: a checkpoint has no deeper ones. */
async function listFiles(dir: string): Promise<string[]> {
  const paths: string[] = [];
  const visit = async (prefix: string, deeper: boolean): Promise<void> => {
    const names = await readdir(join(dir, prefix)).catch((cause: Error) => {
      throw new DaybreakError("file.unreadable", `${join(dir, prefix)} cannot be listed: ${cause.message}`, { cause });
    });
    for (const name of names) {
      if (name.startsWith(".")) continue;
      const info = await stat(join(dir, prefix, name)).catch(() => undefined); // a dangling link is no file
      if (info?.isFile()) paths.push(prefix + name);
      if (info?.isDirectory() && deeper) await visit(`${prefix}${name}/`, false);
      if (paths.length > maxFiles) {
        throw new DaybreakError(
          "model.not_found",
          `${dir} holds more than ${maxFiles} files: expected a checkpoint folder`,
        );
      }
    }
  };
  await visit("", true);
  return paths.sort();
}
