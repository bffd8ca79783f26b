// Which hash each file of a checkpoint folder should have, as far as something beside it says so, and which one it has.
// What says so: the names of blobs in a hub's cache, the notes that a hub's downloads leave in `.cache/huggingface`, and
// lists of SHA-256 sums. Knows no formats of weights. Files are hashed as they are read, never held.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { lfsPointer, lfsPointerBytes, staysInside } from "../engine/weights/source.js";
import { DaybreakError, requestCancelled } from "../errors.js";

/** Git's hash of a file is what hubs know of small files: SHA-1 of a line with its length, and of its bytes. */
export type HashKind = "sha256" | "git-sha1";

/** What a file should be, and who says so. */
export type ExpectedHash = { kind: HashKind; hash: string; by: string };

export type CheckedFile = {
  path: string;
  /** `pointer`: Git LFS's stand-in for a file; `unknown`: nothing says what it should be. */
  state: "right" | "wrong" | "missing" | "pointer" | "unknown";
  /** The hash that it has, of the kind that decided. */
  got?: string;
  expected: ExpectedHash[];
};

/** Lists of sums are short; anything longer is something else. */
const maxListBytes = 4 * 1024 * 1024;
/** A component's folder, and a folder in it. */
const maxDepth = 3;
const readBytes = 1024 * 1024;

/**
 * What is said of the files of a checkpoint folder, by path.
 * @param paths the files that are there
 * Errors: `file.unreadable` for a list of sums that is none.
 */
export async function expectedHashes(folder: string, paths: readonly string[]): Promise<Map<string, ExpectedHash[]>> {
  const expected = new Map<string, ExpectedHash[]>();
  const say = (path: string, hash: string | undefined, by: string) => {
    const kind = hash === undefined ? undefined : kindOf(hash);
    if (hash === undefined || kind === undefined) return;
    expected.set(path, [...(expected.get(path) ?? []), { kind, hash: hash.toLowerCase(), by }]);
  };
  for (const path of paths) {
    const real = await realpath(join(folder, path)).catch(() => join(folder, path));
    if (basename(dirname(real)) === "blobs") say(path, basename(real), "the hub's name of it");
  }
  const notes = join(folder, ".cache", "huggingface", "download");
  for (const note of await filesBelow(notes, maxDepth)) {
    if (!note.endsWith(".metadata")) continue;
    // Three lines: the commit, the hash, when it came.
    const [, hash] = (await readShort(join(notes, note))).split("\n");
    say(note.slice(0, -".metadata".length), hash?.trim(), `.cache/huggingface/download/${note}`);
  }
  for (const list of paths.filter(isList)) {
    const within = list.includes("/") ? `${dirname(list)}/` : "";
    const sums = sumsOf(await readShort(join(folder, list)), list);
    for (const [name, hash] of sums) if (staysInside(within + name)) say(within + name, hash, list);
  }
  return expected;
}

/**
 * Hashes the files of which something is said.
 * @param onBytes is told how many more bytes have been read
 * Errors: `file.unreadable`, `request.cancelled`.
 */
export async function checkFiles(
  folder: string,
  paths: readonly string[],
  expected: ReadonlyMap<string, ExpectedHash[]>,
  { signal, onBytes }: { signal?: AbortSignal; onBytes?: (count: number) => void } = {},
): Promise<CheckedFile[]> {
  const checked: CheckedFile[] = [];
  for (const path of [...new Set([...paths, ...expected.keys()])].sort()) {
    const said = expected.get(path) ?? [];
    checked.push({ path, expected: said, ...(await checkFile(join(folder, path), path, said, { signal, onBytes })) });
  }
  return checked;
}

async function checkFile(
  file: string,
  path: string,
  said: readonly ExpectedHash[],
  options: { signal?: AbortSignal; onBytes?: (count: number) => void },
): Promise<Pick<CheckedFile, "state" | "got">> {
  const info = await stat(file).catch(() => undefined);
  if (!info?.isFile()) return { state: "missing" };
  if (info.size <= lfsPointerBytes && lfsPointer(path, await readFile(file))) return { state: "pointer" };
  let got: string | undefined;
  for (const kind of new Set(said.map((one) => one.kind))) {
    got = await hashFile(file, kind, info.size, options);
    if (said.some((one) => one.kind === kind && one.hash !== got)) return { state: "wrong", got };
  }
  return got === undefined ? { state: "unknown" } : { state: "right", got };
}

async function hashFile(
  file: string,
  kind: HashKind,
  size: number,
  { signal, onBytes }: { signal?: AbortSignal; onBytes?: (count: number) => void },
): Promise<string> {
  const hash = createHash(kind === "sha256" ? "sha256" : "sha1");
  if (kind === "git-sha1") hash.update(`blob ${size}\0`);
  try {
    for await (const bytes of createReadStream(file, { highWaterMark: readBytes, signal })) {
      hash.update(bytes as Uint8Array);
      onBytes?.((bytes as Uint8Array).length);
    }
  } catch (cause) {
    if (signal?.aborted) throw requestCancelled(cause, "verifying");
    throw new DaybreakError("file.unreadable", `${file} cannot be read: ${(cause as Error).message}`, { cause });
  }
  return hash.digest("hex");
}

function kindOf(hash: string): HashKind | undefined {
  if (/^[\da-f]{64}$/i.test(hash)) return "sha256";
  return /^[\da-f]{40}$/i.test(hash) ? "git-sha1" : undefined;
}

/** `SHA256SUMS`, `sha256sum.txt`, `model.safetensors.sha256` and the like. */
function isList(path: string): boolean {
  return /^(sha256sums?(\.txt)?|.+\.sha256(sums?)?)$/i.test(basename(path));
}

/** File → sum: as sha256sum writes them, as BSD's tools do, or a sum alone in a file that is called after its own. */
function sumsOf(text: string, list: string): Map<string, string> {
  const sums = new Map<string, string>();
  for (const line of text.split(/\r?\n/)) {
    const [, hash, name] = /^([\da-f]{64})(?: [ *](?:\.\/)?(.+))?$/i.exec(line.trim()) ?? [];
    const [, ofBsd, hashOfBsd] = /^SHA256 \((?:\.\/)?(.+)\) = ([\da-f]{64})$/i.exec(line.trim()) ?? [];
    if (ofBsd !== undefined && hashOfBsd !== undefined) sums.set(ofBsd, hashOfBsd);
    else if (hash !== undefined) sums.set(name ?? basename(list).replace(/\.sha256$/i, ""), hash);
  }
  if (sums.size > 0) return sums;
  throw new DaybreakError(
    "file.unreadable",
    `${list} holds no line of a SHA-256 and a file's name: correct it or remove it`,
  );
}

async function readShort(file: string): Promise<string> {
  const { size } = await stat(file);
  if (size <= maxListBytes) return readFile(file, "utf8");
  throw new DaybreakError("file.unreadable", `${file} has ${size} bytes, expected a list of at most ${maxListBytes}`);
}

/** Regular files below a folder, if there is one. */
async function filesBelow(folder: string, depth: number): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const found: string[] = [];
  for (const entry of entries) {
    if (entry.isFile()) found.push(entry.name);
    if (!entry.isDirectory() || depth === 0) continue;
    for (const path of await filesBelow(join(folder, entry.name), depth - 1)) found.push(`${entry.name}/${path}`);
  }
  return found.sort();
}
