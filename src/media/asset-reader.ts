// Reading of one stored asset, whole or in chunks. Knows an open file and the asset it holds, not the store.
// Every chunk gets memory of its own and reads by position, so that many readers share one open file. Each is compared
// with what was stored before anybody gets it: damaged bytes never leave.

import { assert, DaybreakError } from "../errors.js";
import { areIntact, chunkBytes, startChecks } from "./asset-checks.js";
import type { Asset } from "./asset-files.js";
import type { HeldFile } from "./open-files.js";

/** One reader of an asset, which is neither evicted nor overwritten under it. */
export type AssetReader = {
  asset: Asset;
  /**
   * The bytes `begin` ≤ i < `end` in chunks of at most 256 KiB, each of its own memory. Closes the reader at its end.
   * Errors of reading: `media.damaged`, `file.unreadable`.
   */
  stream(begin: number, end: number): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
};

/** An asset and its open file. */
type OpenAsset = HeldFile & { asset: Asset };

/** One whose content is known: a CRC-32 of each chunk. `noteDamage` tells the store that a chunk has another one. */
export type HeldAsset = OpenAsset & { chunks: Uint32Array; noteDamage(error: DaybreakError): void };

export function assetReader(held: HeldAsset): AssetReader {
  return {
    asset: held.asset,
    stream: (begin, end) => chunks(held, begin, end),
    close: async () => held.release(),
  };
}

/** An iterator by hand: `return()` of a generator that was never asked for anything would release nothing. */
function chunks(held: HeldAsset, begin: number, end: number): AsyncIterable<Uint8Array> {
  const { bytes } = held.asset;
  assert(0 <= begin && begin <= end && end <= bytes, `got the range ${begin}…${end}, expected one within 0…${bytes}`);
  let position = begin;
  const finish = async (): Promise<IteratorResult<Uint8Array>> => {
    position = end;
    held.release();
    return { done: true, value: undefined };
  };
  const next = async (): Promise<IteratorResult<Uint8Array>> => {
    if (position === end) return finish();
    const from = position;
    position = Math.min(end, from - (from % chunkBytes) + chunkBytes);
    const isLast = position === end;
    try {
      const value = await readIntact(held, from, position);
      if (isLast) held.release();
      return { done: false, value };
    } catch (error) {
      await finish();
      throw error;
    }
  };
  return { [Symbol.asyncIterator]: () => ({ next, return: finish }) };
}

/** An asset's bytes. Errors: `media.damaged`, `file.unreadable`. */
export function readWhole(held: HeldAsset): Promise<Uint8Array> {
  return readIntact(held, 0, held.asset.bytes);
}

/** The bytes `begin` ≤ i < `end`. The chunks in which they lie are read whole, because only those can be checked. */
async function readIntact(held: HeldAsset, begin: number, end: number): Promise<Uint8Array> {
  const first = Math.floor(begin / chunkBytes);
  const from = first * chunkBytes;
  const to = Math.min(held.asset.bytes, Math.ceil(end / chunkBytes) * chunkBytes);
  const bytes = await readRange(held, from, to);
  if (areIntact(bytes, first, held.chunks)) {
    // A part in memory of its own: the rest would be kept with it.
    return end - begin === bytes.length ? bytes : new Uint8Array(bytes.subarray(begin - from, end - from));
  }
  const error = damaged(held.asset.id);
  held.noteDamage(error);
  throw error;
}

/**
 * Reads an asset for the first time: the CRC-32 of each of its chunks, if all of them together have its hash.
 * Errors: `media.damaged`, `file.unreadable`.
 */
export async function verify(open: OpenAsset): Promise<Uint32Array> {
  const { id, bytes, sha256 } = open.asset;
  const checks = startChecks();
  for (let at = 0; at < bytes; at += chunkBytes) {
    checks.update(await readRange(open, at, Math.min(bytes, at + chunkBytes)));
  }
  const found = checks.finish();
  if (found.sha256 === sha256) return found.chunks;
  throw damaged(id);
}

/** The bytes `begin` ≤ i < `end`, in a buffer that no pool shares. */
async function readRange(open: OpenAsset, begin: number, end: number): Promise<Uint8Array> {
  const into = Buffer.allocUnsafeSlow(end - begin);
  for (let filled = 0; filled < into.length; ) {
    let count: number;
    try {
      count = await open.read(filled === 0 ? into : into.subarray(filled), begin + filled);
    } catch (cause) {
      throw unreadable(open.asset.id, cause);
    }
    if (count === 0) throw unreadable(open.asset.id, undefined);
    filled += count;
  }
  return into;
}

function damaged(id: string): DaybreakError {
  return new DaybreakError(
    "media.damaged",
    `got other bytes from the disk than were stored as ${id}, expected the same: make it again, and check the disk`,
  );
}

/** The error of a failed read; it names no path. */
export function unreadable(id: string, cause: unknown): DaybreakError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? "an early end";
  return new DaybreakError("file.unreadable", `got ${code} while reading ${id}, expected its bytes: make it again`, {
    cause,
  });
}
