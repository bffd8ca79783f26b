// Whether stored weights are numbers, and not all of them zero: a checkpoint that holds a NaN, an infinity or nothing gives
// no picture, and is refused when it is loaded rather than after minutes of work. Knows bits; no tensor and no file.
// WebAssembly goes through sixteen bytes at once, at the speed of memory, where script would take as long as the upload;
// where a page forbids it, script does it.

import { type TakeStripes, takeByScript } from "./digest.js";
import type { FiniteTest } from "./encodings.js";
import { compileVectorCode, stripeBytes, type VectorFunctions } from "./vector-code.js";

/** Memory that weights are read into, and what goes through it once it was read. */
export type CheckedMemory = {
  bytes: Uint8Array;
  /** Whether all elements of `part`, a part of `bytes` that is aligned to them, are finite. */
  allFinite(test: FiniteTest, part: Uint8Array): boolean;
  /** Takes stripes of `bytes` into a digest. */
  takeStripes: TakeStripes;
  /** Nobody reads into it or uses it any more. */
  close(): void;
};

/** Memory of `length` bytes, to be closed. `scripted` does without WebAssembly, with the same answers. */
export function checkedMemory(length: number, { scripted = false } = {}): CheckedMemory {
  const kept = scripted ? undefined : vectorMemory(length);
  if (!kept) {
    const close = () => undefined;
    return { bytes: new Uint8Array(length), allFinite: allFiniteByScript, takeStripes: takeByScript, close };
  }
  const { buffer } = kept.memory;
  const allFinite = (test: FiniteTest, part: Uint8Array): boolean => {
    const whole = part.length - (part.length % stripeBytes);
    const { exponents, lowest, signs } = test;
    const [begin, end] = [part.byteOffset, part.byteOffset + whole];
    if (whole > 0 && kept.functions.scan(begin, end, exponents, lowest, signs)) return false;
    return whole === part.length || allFiniteByScript(test, part.subarray(whole));
  };
  // Where the memory ends, behind all bytes that are given out.
  const lanesBegin = buffer.byteLength - stripeBytes;
  const lanesThere = new Uint32Array(buffer, lanesBegin, stripeBytes / 4);
  const takeStripes: TakeStripes = (lanes, stripes) => {
    lanesThere.set(lanes);
    kept.functions.digest(stripes.byteOffset, stripes.byteOffset + stripes.length, lanesBegin);
    lanes.set(lanesThere);
  };
  const close = () => {
    idle = kept;
  };
  return { bytes: new Uint8Array(buffer, 0, length), allFinite, takeStripes, close };
}

type VectorMemory = { memory: WebAssembly.Memory; functions: VectorFunctions };

const pageBytes = 65536;

/** The one closed last: blocks that are streamed need one each, and each reserves gigabytes of address space. */
let idle: VectorMemory | undefined;

/** Undefined where there is no WebAssembly, a page's policy forbids it, or its memory cannot be reserved. */
function vectorMemory(length: number): VectorMemory | undefined {
  const kept = idle;
  idle = undefined;
  if (kept && kept.memory.buffer.byteLength >= length + stripeBytes) return kept;
  try {
    const memory = new WebAssembly.Memory({ initial: Math.ceil((length + stripeBytes) / pageBytes) });
    return { memory, functions: compileVectorCode(memory) };
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

/** Bytes that are looked at first: as a rule they tell that a tensor is not zero. */
const headBytes = 64;

/** Whether all elements of bytes that begin with an element, in any memory, are zero but for their signs. */
export function allZero({ signs }: Pick<FiniteTest, "signs">, part: Uint8Array): boolean {
  return isZero(signs, part.slice(0, headBytes)) && (part.length <= headBytes || isZero(signs, part));
}

function isZero(signs: number, part: Uint8Array): boolean {
  const { buffer, byteOffset, length } = part.byteOffset % 4 === 0 ? part : part.slice();
  const words = new Int32Array(buffer, byteOffset, Math.floor(length / 4));
  for (let i = 0; i < words.length; i++) if ((words[i]! & ~signs) !== 0) return false;
  for (let at = words.length * 4; at < length; at++) if ((part[at]! & ~(signs >>> (8 * (at % 4)))) !== 0) return false;
  return true;
}
