// The files of the asset store: how they are named, what a side-car says, and how they are written so that after a
// crash there are whole assets or none. Knows one asset at a time: no index, no budget, no time to live.
// The side-car is the commit point: it names its content file, whose bytes were on the disk before it.

import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, lstat, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { DaybreakError } from "../errors.js";
import { syncFile } from "../file-sync.js";

/** Images, videos, and stored API responses (JSON). */
export type AssetKind = "img" | "vid" | "resp";

/** A stored file and what is known of it. Times in milliseconds since 1970. */
export type Asset = {
  id: string;
  kind: AssetKind;
  mime: string;
  /** The content's. */
  bytes: number;
  /** The content's, in hexadecimal. */
  sha256: string;
  created_ms: number;
  /** Null: never. */
  expires_ms: number | null;
  /** Whether its address is given out. */
  isPublic: boolean;
  /** Stands for whoever stored it; none: nobody in particular. */
  owner?: string;
  width?: number;
  height?: number;
  /** Decimal. */
  seed?: string;
  promptHash?: string;
  format?: string;
  /** By which the file says that a machine made it. */
  marks?: string[];
  /** Further JSON facts, such as frames_per_second and num_frames. */
  facts?: Record<string, unknown>;
};

/** An asset and the name of its content file. */
export type StoredAsset = { asset: Asset; contentName: string };

const idPattern = /^(img|vid|resp)_[0-9a-f]{32}$/;
/** `<id>`; `<id>.<n>` once its content was replaced; `<id>.json` is the side-car. */
const storedPattern = /^((?:img|vid|resp)_[0-9a-f]{32})(?:\.(\d{1,15}|json))?$/;
const temporaryPattern = /^tmp-[0-9a-f]{32}(\.[a-z0-9]{1,8})?$/;
const loadsAtOnce = 32;

/** Whether a text from outside is an id: nothing else may come near a path. */
export function isAssetId(text: string): boolean {
  return idPattern.test(text);
}

export function newAssetId(kind: AssetKind): string {
  return `${kind}_${randomBytes(16).toString("hex")}`;
}

export function temporaryName(extension = ""): string {
  return `tmp-${randomBytes(16).toString("hex")}${extension && `.${extension}`}`;
}

export function isTemporaryName(name: string): boolean {
  return temporaryPattern.test(name);
}

/** The content file that comes after `contentName` of the same asset. */
export function nextContentName(contentName: string): string {
  const [, id, generation = "0"] = storedPattern.exec(contentName)!;
  return `${id}.${Number(generation) + 1}`;
}

function sideCarName(id: string): string {
  return `${id}.json`;
}

/** The text of a side-car. */
export function sideCarText({ asset, contentName }: StoredAsset): string {
  return JSON.stringify({ ...asset, content: contentName });
}

const natural = z.number().int().nonnegative();
const sideCar = z.object({
  id: z.string().regex(idPattern),
  kind: z.enum(["img", "vid", "resp"]),
  mime: z.string().regex(/^[\x20-\x7e]{1,200}$/), // it becomes a header
  bytes: natural,
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  created_ms: natural,
  expires_ms: natural.nullable(),
  isPublic: z.boolean(),
  owner: z.string().optional(),
  width: natural.optional(),
  height: natural.optional(),
  seed: z.string().regex(/^\d+$/).optional(),
  promptHash: z.string().optional(),
  format: z.string().optional(),
  marks: z.array(z.string()).optional(),
  facts: z.record(z.string(), z.unknown()).optional(),
  content: z.string().regex(storedPattern),
});

/** What a side-car says; undefined where it says nothing that can be true of `id`. */
export function parseSideCar(text: string, id: string): StoredAsset | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined; // damaged: the caller treats its content as an orphan
  }
  const parsed = sideCar.safeParse(value);
  if (!parsed.success) return undefined;
  const { content: contentName, ...asset } = parsed.data;
  // Where side-cars of version 0.1 have it, which knew owners of responses only.
  if (typeof asset.facts?.owner === "string") asset.owner ??= asset.facts.owner;
  const isItsContent = contentName === id || (contentName.startsWith(`${id}.`) && contentName !== sideCarName(id));
  return asset.id === id && id.startsWith(`${asset.kind}_`) && isItsContent ? { asset, contentName } : undefined;
}

/** A stored asset as found: `size` is content and side-car in bytes, `read_ms` about when it was last read. */
export type FoundAsset = StoredAsset & { size: number; read_ms: number };

/**
 * The whole assets in a folder. Contents are not hashed here, but when they are first read.
 * @param clears whether temporary files and whatever belongs to no whole asset are removed; files of other names are
 *   left alone
 */
export async function loadAssets(folder: string, clears: boolean): Promise<FoundAsset[]> {
  const names = await readdir(folder);
  const ids = names.filter((name) => name.endsWith(".json") && isAssetId(name.slice(0, -5))).map((n) => n.slice(0, -5));
  const found: FoundAsset[] = [];
  const loadNext = async () => {
    for (let id = ids.pop(); id !== undefined; id = ids.pop()) {
      const asset = await loadAsset(folder, id);
      if (asset) found.push(asset);
    }
  };
  await Promise.all(Array.from({ length: loadsAtOnce }, loadNext));
  if (!clears) return found;
  const wanted = new Set(found.flatMap(({ asset, contentName }) => [contentName, sideCarName(asset.id)]));
  for (const name of names) {
    if (wanted.has(name) || !(storedPattern.test(name) || temporaryPattern.test(name))) continue;
    await rm(join(folder, name), { force: true, recursive: true });
  }
  return found;
}

async function loadAsset(folder: string, id: string): Promise<FoundAsset | undefined> {
  const path = join(folder, sideCarName(id));
  if (!(await lstat(path)).isFile()) return undefined;
  const text = await readFile(path, "utf8");
  const stored = parseSideCar(text, id);
  if (!stored) return undefined;
  const content = await lstat(join(folder, stored.contentName)).catch((error) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (!content?.isFile() || content.size !== stored.asset.bytes) return undefined;
  return { ...stored, size: content.size + Buffer.byteLength(text), read_ms: content.mtimeMs };
}

/** Writes a new file and waits until its bytes are on the disk. */
export async function writeDurably(path: string, content: Uint8Array | string): Promise<void> {
  const file = await open(path, "wx", 0o600);
  await finishDurably(file, () => file.writeFile(content));
}

/** Does `work` with an open file, waits until its bytes are on the disk, and closes it in any case. */
async function finishDurably(file: FileHandle, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    await syncFile(file);
  } finally {
    await file.close();
  }
}

/** What is to be written under a name: bytes, or a finished file that is renamed. */
export type Content = { bytes: Uint8Array } | { path: string };

/**
 * Writes content and side-car under temporary names at once, then names them, in the order that makes the side-car the
 * commit point. They are on the disk after {@link syncFolder}. Leaves nothing when it fails.
 * @param text the side-car's
 */
export async function writeAsset(folder: string, content: Content, stored: StoredAsset, text: string): Promise<void> {
  const isBytes = "bytes" in content;
  const temporary = {
    content: isBytes ? join(folder, temporaryName()) : content.path,
    sideCar: join(folder, temporaryName("json")),
  };
  const results = await Promise.allSettled([
    isBytes ? writeDurably(temporary.content, content.bytes) : syncClosedFile(content.path),
    writeDurably(temporary.sideCar, text),
  ]);
  try {
    for (const result of results) if (result.status === "rejected") throw result.reason;
    await rename(temporary.content, join(folder, stored.contentName));
    await rename(temporary.sideCar, join(folder, sideCarName(stored.asset.id)));
  } catch (error) {
    const left = [temporary.sideCar, temporary.content, join(folder, stored.contentName)];
    for (const path of left) await rm(path, { force: true }).catch(() => {}); // the first error is the one to report
    throw error;
  }
}

async function syncClosedFile(path: string): Promise<void> {
  await finishDurably(await open(path, "r+"), async () => {});
}

/** Removes an asset, its side-car first: what a crash leaves of it is an orphan. */
export async function removeAsset(folder: string, { asset, contentName }: StoredAsset): Promise<void> {
  await rm(join(folder, sideCarName(asset.id)), { force: true });
  await rm(join(folder, contentName), { force: true });
}

/** Whether an asset's side-car is there: what has one is found at the next start. */
export function hasSideCar(folder: string, id: string): Promise<boolean> {
  return lstat(join(folder, sideCarName(id))).then(
    () => true,
    () => false,
  );
}

/** Waits until renamed and removed names are on the disk. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return; // folders cannot be opened there; renames are journalled
  const handle = await open(folder, constants.O_RDONLY);
  await syncFile(handle).finally(() => handle.close());
}

/**
 * The error of a failed write; one that is not the file system's comes back as it is. Messages name no path: they
 * reach callers of the server.
 */
export function writeError(cause: unknown): unknown {
  if (!(cause instanceof Error) || !("syscall" in cause)) return cause;
  const { code } = cause as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new DaybreakError(
      "media.storage_full",
      `got ${code} while storing an asset, expected room on the disk: free some, or lower the media budget`,
      { cause },
    );
  }
  const advice = code === "EFBIG" ? "raise `ulimit -f`, or check the file system" : "check the folder and its disk";
  return new DaybreakError(
    "media.unwritable",
    `got ${code} while writing to the media folder, expected to be able to: ${advice}`,
    { cause },
  );
}
