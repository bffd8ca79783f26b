// Where a checkpoint's bytes come from: the interface and the sources that any JavaScript platform has.
// A source knows files and byte ranges, not formats. Folders on disk live in src/node.
// A source may be someone else's code: the engine reads only through `readRange`, which checks what it gives.

import { firstAborted } from "../../abort.js";
import { assert, DaybreakError, type ErrorCode, requestCancelled, unlessAborted } from "../../errors.js";

/**
 * A checkpoint as a set of files that can be read by range. Paths are relative, with `/` between names
 * (`transformer/config.json`).
 */
export type CheckpointSource = {
  /** Every file's path. */
  list(): Promise<string[]>;
  /**
   * Bytes [begin, end) of a file; fewer than `end - begin` bytes only where the file ends before `end`. Once `signal` is
   * aborted nobody waits for them any more.
   */
  read(path: string, begin: number, end: number, signal?: AbortSignal): Promise<Uint8Array>;
  /**
   * Optional: bytes [begin, begin + target.length) written into `target`; resolves to how many there were. Weights
   * are read through it where it exists, so that gigabytes pass through a few megabytes of memory.
   */
  readInto?(path: string, begin: number, target: Uint8Array, signal?: AbortSignal): Promise<number>;
};

/** Config and index files are text of a few kilobytes; an index of 10⁵ tensors stays far below this. */
const maxJsonBytes = 32 * 1024 * 1024;

/** Whether `path` is relative, with plain names between `/`: it cannot leave the folder it is joined to. */
export function staysInside(path: string): boolean {
  if (/[\\:\0]/.test(path)) return false;
  return path.split("/").every((name) => name !== "" && name !== "." && name !== "..");
}

/**
 * Bytes [begin, end) of a file of any source, clipped at the file's end.
 * Errors: those of the source; `file.unreadable` for anything else that it throws or that is no valid answer;
 * `request.cancelled` as soon as `signal` is aborted, also where the source goes on reading.
 */
export async function readRange(
  source: CheckpointSource,
  path: string,
  begin: number,
  end: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  checkRange(path, begin, end);
  if (begin === end) return new Uint8Array(0);
  const bytes = await unlessAborted(
    answer(path, signal, () => source.read(path, begin, end, signal)),
    signal,
    readCancelled,
  );
  if (!(bytes instanceof Uint8Array) || bytes.length > end - begin) {
    const got = bytes instanceof Uint8Array ? `${bytes.length} bytes` : typeof bytes;
    throw new DaybreakError(
      "file.unreadable",
      `the source answered ${got} for ${end - begin} bytes of ${path}: it must give a Uint8Array of at most that length`,
    );
  }
  return bytes;
}

/**
 * Like {@link readRange}, into `target`; resolves to the number of bytes, less than its length at the file's end. It
 * settles when the source does: until then `target` is written to.
 */
export async function readRangeInto(
  source: CheckpointSource,
  path: string,
  begin: number,
  target: Uint8Array,
  signal?: AbortSignal,
): Promise<number> {
  checkRange(path, begin, begin + target.length);
  if (!source.readInto) {
    const bytes = await readRange(source, path, begin, begin + target.length, signal);
    target.set(bytes);
    return bytes.length;
  }
  const count = await answer(path, signal, () => source.readInto!(path, begin, target, signal));
  if (!Number.isInteger(count) || count < 0 || count > target.length) {
    throw new DaybreakError(
      "file.unreadable",
      `the source answered a count of ${count} for ${target.length} bytes of ${path}`,
    );
  }
  return count;
}

/** A Git LFS pointer is no longer than that. */
export const lfsPointerBytes = 1024;

/** The error for a file that begins with these bytes, if they are a pointer: what a clone leaves where Git LFS is missing. */
export function lfsPointer(path: string, bytes: Uint8Array): DaybreakError | undefined {
  const text = new TextDecoder().decode(bytes.subarray(0, lfsPointerBytes));
  if (!text.startsWith("version https://git-lfs.github.com/spec/")) return undefined;
  const size = /^size (\d{1,15})$/m.exec(text)?.[1];
  return new DaybreakError(
    "model.lfs_pointer",
    `${path} is a Git LFS pointer, which stands for a file${size === undefined ? "" : ` of ${size} bytes`} that was not fetched: run "git lfs install" and "git lfs pull" in the checkpoint's folder, or fetch the file itself`,
  );
}

/**
 * Parses a JSON file. `code` is the error for a file that is too long, is no UTF-8 or no JSON.
 * Errors: `code` (default `model.config_invalid`); `model.lfs_pointer`; those of {@link readRange}.
 */
export async function readJson(
  source: CheckpointSource,
  path: string,
  options: { code?: ErrorCode; maxBytes?: number } = {},
): Promise<unknown> {
  const { code = "model.config_invalid", maxBytes = maxJsonBytes } = options;
  const bytes = await readRange(source, path, 0, maxBytes + 1);
  if (bytes.length > maxBytes) {
    throw new DaybreakError(code, `${path} is longer than ${maxBytes} bytes: it is no file of a checkpoint`);
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const pointer = lfsPointer(path, bytes);
    if (pointer) throw pointer;
    throw new DaybreakError(code, `${path} is no JSON: ${oneLine(cause)}; fetch the file again`, { cause });
  }
}

/** A source over bytes in memory; the arrays are not copied. */
export function bytesSource(files: Map<string, Uint8Array>): CheckpointSource {
  const open = (path: string) => files.get(path) ?? missing(path);
  return {
    list: async () => [...files.keys()],
    read: async (path, begin, end) => open(path).slice(begin, end),
    readInto: async (path, begin, target) => {
      const bytes = open(path).subarray(begin, begin + target.length);
      target.set(bytes);
      return bytes.length;
    },
  };
}

/** A source over `Blob`s, which includes the `File`s of a file input or of a folder dropped on a page. */
export function blobSource(files: Map<string, Blob>): CheckpointSource {
  return {
    list: async () => [...files.keys()],
    read: async (path, begin, end) => {
      const blob = files.get(path) ?? missing(path);
      return new Uint8Array(await blob.slice(begin, end).arrayBuffer());
    },
  };
}

export type UrlSourceOptions = {
  /** A read to which nothing comes for so long fails: connections that are dead may never be closed. Default 60. */
  stallSeconds?: number;
};

/**
 * A source over files below an address, read by HTTP range requests. `paths` are the files that exist: HTTP has no
 * listing. The server must answer 206 and, if it is another origin, expose `Content-Range` to scripts.
 * Errors: `model.not_found` (no address); reading: `model.part_missing` (404, 410), `file.unreadable`.
 */
export function urlSource(
  baseUrl: string | URL,
  paths: readonly string[],
  { stallSeconds = 60 }: UrlSourceOptions = {},
): CheckpointSource {
  const base = folderAddress(baseUrl);
  return {
    list: async () => [...paths],
    read: async (path, begin, end, signal) => {
      const address = addressOf(base, path);
      const watch = stallWatch(path, stallSeconds, signal);
      try {
        return await fetchRange(address, path, [begin, end], watch);
      } finally {
        watch.stop();
      }
    },
  };
}

/** Aborts its signal when it is told of no progress for some seconds, or the reader's signal is aborted. */
type StallWatch = { signal: AbortSignal; moved: () => void; stop: () => void };

function stallWatch(path: string, seconds: number, reader: AbortSignal | undefined): StallWatch {
  const controller = new AbortController();
  const giveUp = () => {
    const message = `${path}: nothing came for ${seconds} s: the connection or the server is stuck; try again`;
    controller.abort(new DaybreakError("file.unreadable", message));
  };
  let timer = setTimeout(giveUp, 1000 * seconds);
  const moved = () => {
    clearTimeout(timer);
    timer = setTimeout(giveUp, 1000 * seconds);
  };
  const { signal, release } = firstAborted(controller.signal, ...(reader ? [reader] : []));
  const stop = () => {
    clearTimeout(timer);
    release();
  };
  return { signal, moved, stop };
}

/** In a page, an address may be relative to the page's. */
function folderAddress(baseUrl: string | URL): URL {
  if (!URL.canParse(String(baseUrl), globalThis.location?.href)) {
    throw new DaybreakError(
      "model.not_found",
      `got ${quote(String(baseUrl))}, expected the address of a checkpoint folder`,
    );
  }
  const base = new URL(baseUrl, globalThis.location?.href);
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

/** The address of a file below `base`; a query (a signed address's token) is kept. */
function addressOf(base: URL, path: string): URL {
  assert(staysInside(path), `got path ${JSON.stringify(path)}, expected one inside the checkpoint`);
  const address = new URL(base);
  address.pathname += path.split("/").map(encodeURIComponent).join("/");
  return address;
}

async function fetchRange(
  address: URL,
  path: string,
  [begin, end]: [number, number],
  watch: StallWatch,
): Promise<Uint8Array> {
  const headers = { Range: `bytes=${begin}-${end - 1}` };
  const response = await fetch(address, { headers, signal: watch.signal });
  watch.moved();
  if (response.status !== 206) {
    await response.body?.cancel();
    // 416: the range lies behind the file's end, which for a source means no bytes.
    if (response.status === 416) return new Uint8Array(0);
    if (response.status === 404 || response.status === 410) missing(path);
    const hint = response.status === 200 ? "; the server must support range requests" : "";
    throw new DaybreakError("file.unreadable", `${path}: got HTTP status ${response.status}, expected 206${hint}`);
  }
  const contentRange = response.headers.get("Content-Range");
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(contentRange ?? "");
  const [first, last] = [Number(match?.[1]), Number(match?.[2])];
  const complete = last + 1 === end || match?.[3] === "*" || last + 1 === Number(match?.[3]);
  if (!match || first !== begin || last < begin || last >= end || !complete) {
    await response.body?.cancel();
    const hint = contentRange === null ? "; a server of another origin must expose this header" : "";
    const got = contentRange === null ? "none" : JSON.stringify(contentRange);
    throw new DaybreakError(
      "file.unreadable",
      `${path}: got Content-Range ${got}, expected bytes ${begin}-${end - 1}${hint}`,
    );
  }
  return readBody(response, path, last + 1 - begin, watch);
}

/** Reads exactly `length` bytes and no more: a server that goes on sending cannot fill the memory. */
async function readBody(response: Response, path: string, length: number, { moved }: StallWatch): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done || value === undefined) break;
    moved();
    if (filled + value.length > length) {
      await reader?.cancel();
      filled = Number.POSITIVE_INFINITY;
      break;
    }
    bytes.set(value, filled);
    filled += value.length;
  }
  if (filled === length) return bytes;
  const got = filled > length ? "more" : `${filled}`;
  throw new DaybreakError(
    "file.unreadable",
    `${path}: got ${got} bytes, expected ${length}: the transfer was cut or padded; try again`,
  );
}

function missing(path: string): never {
  throw new DaybreakError(
    "model.part_missing",
    `the checkpoint has no file ${path}: fetch it, or check the paths given`,
  );
}

function checkRange(path: string, begin: number, end: number): void {
  assert(
    Number.isSafeInteger(begin) && Number.isSafeInteger(end) && 0 <= begin && begin <= end,
    `got range [${begin}, ${end}) of ${path}, expected 0 ≤ begin ≤ end`,
  );
}

/** What a source answers, with errors of this program. */
async function answer<T>(path: string, signal: AbortSignal | undefined, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (signal?.aborted) throw readCancelled(signal.reason);
    if (cause instanceof DaybreakError) throw cause;
    throw new DaybreakError("file.unreadable", `${path} cannot be read: ${oneLine(cause)}`, { cause });
  }
}

/** What a read that was aborted for a reason ends with. */
export function readCancelled(cause: unknown): DaybreakError {
  return requestCancelled(cause, "reading the checkpoint");
}

/** An error's message without line breaks and of bounded length, to be quoted in another message. */
export function oneLine(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  const line = message.slice(0, 1000).replace(/\s+/g, " ").trim();
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}

/** Whether a parsed JSON value is an object. Read its fields through `Object.hasOwn` or `Object.entries`. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * A value from a file, quoted for a message: one line of bounded length. Nested values are only counted: writing them
 * out recurses as deep as the file's author pleases.
 */
export function quote(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) {
    const flat = value.length <= 16 && value.every((item) => typeof item !== "object" || item === null);
    return flat ? oneLine(JSON.stringify(value)) : `an array of ${value.length}`;
  }
  return isRecord(value) ? `an object of ${Object.keys(value).length} fields` : oneLine(JSON.stringify(value));
}
