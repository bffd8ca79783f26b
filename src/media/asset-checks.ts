// How a stored file is known to hold the bytes that were stored. The SHA-256 of the whole is its ETag and stands in its
// side-car; a CRC-32 of each chunk, kept in memory, finds what changed on the disk since, in every read and in ranges as
// well, at a tenth of the cost. Chunks lie at multiples of their size. Knows bytes, no files.

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

export const chunkBytes = 256 * 1024;

/** `sha256` of all bytes, in hexadecimal; `chunks`: a CRC-32 each. */
export type Checks = { sha256: string; chunks: Uint32Array };

/** Takes bytes as they come, in pieces of any length. */
export function startChecks(): { update(bytes: Uint8Array): void; finish(): Checks } {
  const hash = createHash("sha256");
  const chunks: number[] = [];
  let sum = 0;
  let filled = 0;
  return {
    update: (bytes) => {
      hash.update(bytes);
      for (let at = 0; at < bytes.length; ) {
        const part = bytes.subarray(at, at + chunkBytes - filled);
        sum = crc32(part, sum);
        at += part.length;
        filled += part.length;
        if (filled < chunkBytes) break;
        chunks.push(sum);
        sum = 0;
        filled = 0;
      }
    },
    finish: () => {
      if (filled > 0) chunks.push(sum);
      return { sha256: hash.digest("hex"), chunks: Uint32Array.from(chunks) };
    },
  };
}

export function checksOf(bytes: Uint8Array): Checks {
  const checks = startChecks();
  checks.update(bytes);
  return checks.finish();
}

/** Whether bytes that begin with chunk `first` of a file, and end with a chunk, are those that were stored. */
export function areIntact(bytes: Uint8Array, first: number, chunks: Uint32Array): boolean {
  for (let at = 0, index = first; at < bytes.length; at += chunkBytes, index++) {
    if (crc32(bytes.subarray(at, at + chunkBytes)) !== chunks[index]) return false;
  }
  return true;
}
