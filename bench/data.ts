// Inputs of the benchmarks: the same numbers for our kernels and for a peer, made quickly in any amount.
// Values are multiples of 1/64 below 2, exact in f32, f16 and bf16 alike, so that every dtype does the same sum.
// A prime period keeps neighbouring rows different; another name means other numbers.

import type { Device } from "../src/engine/gpu/device.js";
import { createTensor, type Tensor, tensorUsage } from "../src/engine/gpu/tensor.js";
import type { Vector, Weight } from "../src/engine/weights/upload.js";
import { assert } from "../src/errors.js";

const period = 65521;

type Dtype = "f32" | "f16" | "bf16";

/** Elements [0, count) of what `name` stands for: f32 values, or the bits of f16 or bf16. */
export function elements(name: string, count: number, dtype: "f32"): Float32Array<ArrayBuffer>;
export function elements(
  name: string,
  count: number,
  dtype: Dtype,
): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
export function elements(name: string, count: number, dtype: Dtype) {
  const values = patternOf(name);
  const bits = new Uint32Array(values.buffer);
  const pattern = dtype === "f32" ? values : Uint16Array.from(bits, dtype === "f16" ? f16Bits : (b) => b >>> 16);
  const all = dtype === "f32" ? new Float32Array(count) : new Uint16Array(count);
  for (let at = 0; at < count; at += period) all.set(pattern.subarray(0, Math.min(period, count - at)), at);
  return all;
}

/** Multiples of 1/64 from -127/64 to 127/64, seeded by a name (mulberry32 over its FNV-1a hash). */
function patternOf(name: string): Float32Array<ArrayBuffer> {
  let state = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) state = Math.imul(state ^ name.charCodeAt(i), 0x01000193);
  return Float32Array.from({ length: period }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) % 255) / 64 - 127 / 64;
  });
}

/** Exact values between 1/64 and 2 are normal in f16: the exponent is rebiased, the fraction loses only zeros. */
function f16Bits(bits: number): number {
  return bits === 0 ? 0 : ((bits >>> 16) & 0x8000) | (((bits & 0x7fffffff) >>> 13) - 0x1c000);
}

const chunkBytes = 16 * 1024 * 1024;

/** Makes a case's inputs, each name once; {@link close} destroys them. */
export class BenchInputs {
  readonly #device: Device;
  #made = new Map<string, { buffer: GPUBuffer; value: Tensor | Weight | Vector }>();

  constructor(device: Device) {
    this.#device = device;
  }

  /** A [rows, cols] tensor; cols must be a multiple of 8. */
  tensor(name: string, rows: number, cols: number, dtype: "f32" | "f16" = "f32"): Tensor {
    return this.#once(name, () => {
      assert(cols % 8 === 0, `"${name}" has ${cols} columns, expected a multiple of 8`);
      const value = createTensor(this.#device, name, rows, cols, dtype);
      const buffer = value.storage.buffer as GPUBuffer;
      this.#write(buffer, elements(name, rows * cols, dtype));
      return { buffer, value };
    }) as Tensor;
  }

  /** A [rows, cols] weight; cols must be a multiple of 8. */
  weight(name: string, rows: number, cols: number, dtype: "f32" | "bf16"): Weight {
    return this.#once(name, () => {
      assert(cols % 8 === 0, `"${name}" has ${cols} columns, expected a multiple of 8`);
      const values = elements(name, rows * cols, dtype);
      const buffer = this.#device.createBuffer(name, values.byteLength, tensorUsage);
      this.#write(buffer, values);
      const { byteLength } = values;
      const storage = { label: name, byteLength, buffer, isPlanned: false };
      const value = { label: name, storage, byteOffset: 0, rows, cols, pitch: cols, dtype, byteLength };
      return { buffer, value };
    }) as Weight;
  }

  /** A parameter vector of a length that is a multiple of 8. */
  vector(name: string, length: number): Vector {
    const { storage } = this.tensor(name, 1, length);
    return { label: name, storage, byteOffset: 0, length };
  }

  close(): void {
    for (const { buffer } of this.#made.values()) this.#device.destroyBuffer(buffer);
    this.#made.clear();
  }

  #once(name: string, make: () => { buffer: GPUBuffer; value: Tensor | Weight | Vector }) {
    let made = this.#made.get(name);
    if (!made) {
      made = make();
      this.#made.set(name, made);
    }
    return made.value;
  }

  #write(buffer: GPUBuffer, values: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>): void {
    for (let at = 0; at < values.byteLength; at += chunkBytes) {
      const length = Math.min(chunkBytes, values.byteLength - at);
      this.#device.gpu.queue.writeBuffer(buffer, at, values.buffer, at, length);
    }
  }
}
