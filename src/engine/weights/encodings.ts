// What stored numbers mean: one row for each encoding that weights may have. A file format says where bytes are
// (weights/files/), a row here what they stand for, so that another quantisation is another row. Knows no tensor and no
// file. Works on bit patterns, so that infinities and NaN payloads survive; typed arrays are little-endian like the files
// on every platform that has WebGPU.

import { assert } from "../../errors.js";

/** Element type of a weight on the device. */
export type DeviceDtype = "f32" | "bf16" | "f16";

/**
 * Of a 32-bit word: the exponents of the elements in it, whose bits are all ones in NaN and infinities alone, the lowest
 * bit of each exponent, and each sign. See finite.ts.
 */
export type FiniteTest = { exponents: number; lowest: number; signs: number };

export type Encoding = {
  /** As the file formats spell it. */
  name: string;
  /** Bytes of an element as stored. */
  elementBytes: 1 | 2 | 4 | 8;
  /** What a matrix keeps on the device where that is the bits as they are stored; else elements are widened on the way. */
  device: DeviceDtype | undefined;
  /** How its elements are tested as they are stored; those without are tested as what they are widened to. */
  finite: FiniteTest | undefined;
  /** Widens `count` elements exactly to float32, as bit patterns from `target[offset]` on; `bytes` is aligned to them. */
  widen(bytes: Uint8Array, count: number, target: Uint32Array, offset: number): void;
};

const rows: Readonly<Record<string, Omit<Encoding, "name">>> = {
  F32: {
    elementBytes: 4,
    device: "f32",
    finite: { exponents: 0x7f800000, lowest: 0x00800000, signs: 0x80000000 },
    widen: (bytes, count, target, offset) => {
      new Uint8Array(target.buffer, target.byteOffset + offset * 4, count * 4).set(bytes);
    },
  },
  BF16: {
    elementBytes: 2,
    device: "bf16",
    finite: { exponents: 0x7f807f80, lowest: 0x00800080, signs: 0x80008000 },
    // The upper half of a float32.
    widen: (bytes, count, target, offset) => {
      const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
      for (let i = 0; i < count; i++) target[offset + i] = halves[i]! << 16;
    },
  },
  F16: {
    elementBytes: 2,
    device: "f16",
    finite: { exponents: 0x7c007c00, lowest: 0x04000400, signs: 0x80008000 },
    // IEEE 754 binary16, subnormals included.
    widen: (bytes, count, target, offset) => {
      const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
      const table = f16Table();
      for (let i = 0; i < count; i++) target[offset + i] = table[halves[i]!]!;
    },
  },
};

const encodings: ReadonlyMap<string, Encoding> = new Map(
  Object.entries(rows).map(([name, row]) => [name, { ...row, name }]),
);

/** Their names, for messages: "BF16, F16 or F32". */
export const encodingNames = [...encodings.keys()]
  .sort()
  .join(", ")
  .replace(/, (\w+)$/, " or $1");

/** The encoding of that name; undefined if weights cannot have it. */
export function encodingOf(name: string): Encoding | undefined {
  return encodings.get(name);
}

/** Widens the elements of `bytes` (little-endian, any alignment) exactly to float32, as bit patterns. */
export function widen(encoding: Encoding, bytes: Uint8Array, target: Uint32Array, offset = 0): void {
  const { name, elementBytes } = encoding;
  const count = bytes.length / elementBytes;
  assert(Number.isInteger(count), `got ${bytes.length} bytes, expected whole ${name} elements`);
  assert(
    offset + count <= target.length,
    `got ${count} elements at ${offset}, expected room for them in ${target.length}`,
  );
  encoding.widen(bytes.byteOffset % elementBytes === 0 ? bytes : bytes.slice(), count, target, offset);
}

let f16Bits: Uint32Array | undefined;

/** float32 bits of all 65536 binary16 values: 256 KiB, made when the first F16 tensor is widened. */
function f16Table(): Uint32Array {
  if (f16Bits) return f16Bits;
  const table = new Uint32Array(0x10000);
  const scratch = new DataView(new ArrayBuffer(4));
  for (let half = 0; half < 0x10000; half++) {
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    const sign = ((half & 0x8000) << 16) >>> 0;
    if (exponent === 0) {
      scratch.setFloat32(0, fraction * 2 ** -24); // zero and subnormals: exact in float32
      table[half] = (sign | scratch.getUint32(0)) >>> 0;
    } else {
      const wide = exponent === 0x1f ? 0xff : exponent + 112; // rebias 15 to 127; all ones stay all ones
      table[half] = (sign | (wide << 23) | (fraction << 13)) >>> 0;
    }
  }
  f16Bits = table;
  return table;
}
