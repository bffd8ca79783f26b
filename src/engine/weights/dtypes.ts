// The element types of checkpoint files: their sizes, and the one widening of BF16 and F16 to float32.
// Knows no tensor and no file. Works on bit patterns, so that infinities and NaN payloads survive; typed arrays are
// little-endian like the files on every platform that has WebGPU.

import { assert } from "../../errors.js";

/** The types that weights may have; the spelling is that of safetensors files. */
export type WeightDtype = "F32" | "F16" | "BF16";

/** Bits per element of every type that the safetensors format defines; others are kept by name, without a size. */
export const dtypeBits: ReadonlyMap<string, number> = new Map([
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E8M0", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
]);

export function isWeightDtype(dtype: string): dtype is WeightDtype {
  return dtype === "F32" || dtype === "F16" || dtype === "BF16";
}

/** Bytes of one element. */
export function elementBytes(dtype: WeightDtype): 2 | 4 {
  return dtype === "F32" ? 4 : 2;
}

/**
 * Widens the elements of `bytes` (little-endian, any alignment) exactly to float32, as bit patterns from
 * `target[offset]` on. F16 follows IEEE 754 binary16, subnormals included; BF16 is the upper half of a float32.
 */
export function widen(dtype: WeightDtype, bytes: Uint8Array, target: Uint32Array, offset = 0): void {
  const count = bytes.length / elementBytes(dtype);
  assert(Number.isInteger(count), `got ${bytes.length} bytes, expected whole ${dtype} elements`);
  assert(
    offset + count <= target.length,
    `got ${count} elements at ${offset}, expected room for them in ${target.length}`,
  );
  if (dtype === "F32") {
    new Uint8Array(target.buffer, target.byteOffset + offset * 4, count * 4).set(bytes);
    return;
  }
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, count);
  if (dtype === "BF16") {
    for (let i = 0; i < count; i++) target[offset + i] = halves[i]! << 16;
    return;
  }
  const table = f16Table();
  for (let i = 0; i < count; i++) target[offset + i] = table[halves[i]!]!;
}

/** {@link widen} into a new array. */
export function toFloat32(dtype: WeightDtype, bytes: Uint8Array): Float32Array {
  const bits = new Uint32Array(bytes.length / elementBytes(dtype));
  widen(dtype, bytes, bits);
  return new Float32Array(bits.buffer);
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
