// Identifiers of API objects: a prefix and 128 bits from the system's generator, which say nothing about order or
// number. Every request gets one, so the generator is asked for many at a time.

import { randomFillSync } from "node:crypto";

const idBytes = 16;
const pool = Buffer.alloc(256 * idBytes);
let used = pool.length;

/** Such as `req_…` for the prefix `req`. */
export function newId(prefix: string): string {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const id = `${prefix}_${pool.toString("hex", used, used + idBytes)}`;
  pool.fill(0, used, used + idBytes); // what was given out is not kept
  used += idBytes;
  return id;
}
