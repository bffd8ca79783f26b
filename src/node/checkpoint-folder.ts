// A checkpoint folder on disk as a CheckpointSource: the only place where weights meet the file system. The folder may be
// that of a repository in a hub's cache, which keeps the checkpoint in a folder of its own. Knows nothing of formats. A file is opened once and kept open, and read by position, never whole. Symbolic links are
// followed, because download caches keep a checkpoint's files as links; FIFOs and devices are refused, since opening
// one can block for ever.

import { type FileHandle, lstat, open, readdir, readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { type CheckpointSource, staysInside } from "../engine/weights/source.js";
import { DaybreakError } from "../errors.js";

/** `list` looks at the folder and at the folders in it; more files than this is no checkpoint (a home folder, say). */
const maxFiles = 10_000;

export type FolderSource = Required<CheckpointSource> & {
  /** Where the files are: what was asked for, or in a hub's cache the folder of a snapshot. */
  folder: string;
  /** Closes the files; reads that are under way finish first, later ones fail. */
  close(): Promise<void>;
};

/**
 * Opens a checkpoint folder of diffusers' layout (`model_index.json` beside `transformer/`, `vae/`, …), or the one that is
 * current in a repository's folder of a hub's cache (`models--owner--name`).
 * Errors: `model.not_found` if there is no such folder; reading: `model.part_missing`, `file.unreadable`.
 */
export async function folderSource(asked: string): Promise<FolderSource> {
  await checkFolder(asked);
  const dir = await checkpointFolder(asked);
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
    folder: dir,
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

/** A hub's cache holds `snapshots/COMMIT/` with the files, and in `refs/main` which commit is meant. */
async function checkpointFolder(dir: string): Promise<string> {
  const names = await namesIn(dir);
  if (names.includes("model_index.json")) return dir;
  const repositories = names.filter((name) => name.startsWith("models--"));
  if (repositories.length > 0) {
    const folders = repositories.slice(0, 3).map((name) => join(dir, name));
    throw new DaybreakError(
      "model.not_found",
      `${dir} is a hub's cache: give one folder in it, such as ${folders.join(", ")}`,
    );
  }
  if (!names.includes("snapshots") || !(names.includes("refs") || names.includes("blobs"))) return dir;
  const snapshots = await namesIn(join(dir, "snapshots"));
  const main = await readFile(join(dir, "refs", "main"), "utf8").then(
    (text) => text.trim(),
    () => undefined,
  );
  const chosen = main ?? (snapshots.length === 1 ? snapshots[0] : undefined);
  if (chosen !== undefined && snapshots.includes(chosen)) return join(dir, "snapshots", chosen);
  const found = snapshots.length === 0 ? "holds nothing" : `holds ${snapshots.slice(0, 5).join(", ")}`;
  const wanted =
    main === undefined ? "there is no refs/main to choose by" : `refs/main names ${JSON.stringify(main.slice(0, 64))}`;
  throw new DaybreakError(
    "model.not_found",
    `${dir} is a repository of a hub's cache whose snapshots/ ${found}, and ${wanted}: fetch it again, or give a folder in snapshots/`,
  );
}

async function namesIn(dir: string): Promise<string[]> {
  return (await readdir(dir).catch(() => [])).sort();
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
      const target = await readlink(fullPath).catch(() => undefined);
      const what = target === undefined ? "has no file" : `has a link to ${target}, where nothing is, as`;
      throw new DaybreakError("model.part_missing", `the checkpoint ${dir} ${what} ${path}: fetch it`, { cause });
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
      const full = join(dir, prefix, name);
      const info = await stat(full).catch(() => lstat(full).catch(() => undefined));
      // A link to nothing stands for a file that was not fetched or was cleared away: reading it says so.
      if (info?.isFile() || info?.isSymbolicLink()) paths.push(prefix + name);
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
