// Whether stored weights are numbers: a checkpoint that holds a NaN or an infinity gives no picture, and is refused when
// it is loaded rather than after minutes of work. Knows bits; no tensor and no file. WebAssembly tests sixteen bytes at
// once, at the speed of memory, where script would take as long as the upload; where a page forbids it, script does it.

import type { FiniteTest } from "./encodings.js";
import { compileScan, type Scan, scanBytes } from "./finite-scan.js";

/** Memory that weights are read into, and the test of what was read. */
export type CheckedMemory = {
  bytes: Uint8Array;
  /** Whether all elements of `part`, a part of `bytes` that is aligned to them, are finite. */
  allFinite(test: FiniteTest, part: Uint8Array): boolean;
  /** Nobody reads into it or uses it any more. */
  close(): void;
};

/** Memory of `length` bytes, to be closed. `scripted` does without WebAssembly, with the same answers. */
export function checkedMemory(length: number, { scripted = false } = {}): CheckedMemory {
  const scanned = scripted ? undefined : scannedMemory(length);
  if (!scanned) return { bytes: new Uint8Array(length), allFinite: allFiniteByScript, close: () => undefined };
  const allFinite = (test: FiniteTest, part: Uint8Array): boolean => {
    const whole = part.length - (part.length % scanBytes);
    const { exponents, lowest, signs } = test;
    if (whole > 0 && scanned.scan(part.byteOffset, part.byteOffset + whole, exponents, lowest, signs)) return false;
    return whole === part.length || allFiniteByScript(test, part.subarray(whole));
  };
  const close = () => {
    idle = scanned;
  };
  return { bytes: new Uint8Array(scanned.memory.buffer, 0, length), allFinite, close };
}

type Scanned = { memory: WebAssembly.Memory; scan: Scan };

const pageBytes = 65536;

/** The one closed last: blocks that are streamed need one each, and each reserves gigabytes of address space. */
let idle: Scanned | undefined;

/** Undefined where there is no WebAssembly, a page's policy forbids it, or its memory cannot be reserved. */
function scannedMemory(length: number): Scanned | undefined {
  const kept = idle;
  idle = undefined;
  if (kept && kept.memory.buffer.byteLength >= length) return kept;
  try {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(length / pageBytes) });
    return { memory, scan: compileScan(memory) };
  } catch {
    return undefined;
  }
}

/**
 * Whether all elements of bytes in any memory are finite, tested by script.
 *
 * The lowest bits of exponents, added to them, carry into the places of the signs exactly where all bits of an exponent
 * were ones, and no further.
 */
export function allFiniteByScript({ exponents, lowest, signs }: FiniteTest, part: Uint8Array): boolean {
  if (part.length === 0) return true;
  const before = part.byteOffset % 4; // one element of 16 bits, or none
  const after = (part.length - before) % 4;
  const words = new Int32Array(part.buffer, part.byteOffset + before, (part.length - before - after) / 4);
  const carries = (word: number) => (word & exponents) + lowest;
  const element = (at: number) => part[at]! | (part[at + 1]! << 8);
  let seen = 0;
  if (before > 0) seen |= carries(element(0));
  if (after > 0) seen |= carries(element(part.length - after));
  const turns = words.length - (words.length % 4);
  for (let i = 0; i < turns; i += 4) {
    seen |= carries(words[i]!) | carries(words[i + 1]!) | carries(words[i + 2]!) | carries(words[i + 3]!);
  }
  for (let i = turns; i < words.length; i++) seen |= carries(words[i]!);
  return (seen & signs) === 0;
}
