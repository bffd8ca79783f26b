// Reading of one stored asset, whole or in chunks. Knows an open file and the asset it holds, not the store.
// Every chunk gets memory of its own and reads by position, so that many readers share one open file.

import { assert, DaybreakError } from "../errors.js";
import type { Asset } from "./asset-files.js";
import type { HeldFile } from "./open-files.js";

/** One reader of an asset, which is neither evicted nor overwritten under it. */
export type AssetReader = {
  asset: Asset;
  /** The bytes `begin` ≤ i < `end` in chunks of at most 256 KiB, each of its own memory. Closes the reader at its end. */
  stream(begin: number, end: number): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
};

/** An asset and its open file. */
export type HeldAsset = HeldFile & { asset: Asset };

export const chunkBytes = 256 * 1024;

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
    position = Math.min(end, from + chunkBytes);
    const isLast = position === end;
    try {
      const value = await readRange(held, from, position);
      if (isLast) held.release();
      return { done: false, value };
    } catch (error) {
      await finish();
      throw error;
    }
  };
  return { [Symbol.asyncIterator]: () => ({ next, return: finish }) };
}

/** The bytes `begin` ≤ i < `end`, in a buffer that no pool shares. Errors: `file.unreadable`. */
export async function readRange(held: HeldAsset, begin: number, end: number): Promise<Uint8Array> {
  const into = Buffer.allocUnsafeSlow(end - begin);
  for (let filled = 0; filled < into.length; ) {
    let count: number;
    try {
      count = await held.read(filled === 0 ? into : into.subarray(filled), begin + filled);
    } catch (cause) {
      throw unreadable(held.asset.id, cause);
    }
    if (count === 0) throw unreadable(held.asset.id, undefined);
    filled += count;
  }
  return into;
}

/** The error of a failed read; it names no path. */
export function unreadable(id: string, cause: unknown): DaybreakError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? "an early end";
  return new DaybreakError("file.unreadable", `got ${code} while reading ${id}, expected its bytes: make it again`, {
    cause,
  });
}
