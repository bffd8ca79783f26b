// Inputs of the benchmarks: the same numbers for our kernels and for a peer, made quickly in any amount.
// Values are multiples of 1/64 below 2, exact in f32, f16 and bf16 alike, so that every dtype does the same sum.
// A prime period keeps neighbouring rows different; what a buffer is called decides where in the period it begins.

import type { Device } from "../src/engine/gpu/device.js";
import { createTensor, type Tensor, tensorUsage } from "../src/engine/gpu/tensor.js";
import type { Vector, Weight } from "../src/engine/weights/upload.js";
import { assert } from "../src/errors.js";

const period = 65521;

/** Numerators of the pattern: integers from -127 to 127, in no order that a shape could resonate with. */
const numerators = Int8Array.from({ length: period }, (_, i) => {
  const mixed = Math.imul(Math.imul(i + 1, 0x9e3779b1) ^ (i >>> 7), 0x85ebca6b) >>> 8;
  return (mixed % 255) - 127;
});

type Dtype = "f32" | "f16" | "bf16";

/** Elements [0, count) of what `name` stands for: f32 values, or the bits of f16 or bf16. */
export function elements(name: string, count: number, dtype: "f32"): Float32Array<ArrayBuffer>;
export function elements(
  name: string,
  count: number,
  dtype: Dtype,
): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;
export function elements(name: string, count: number, dtype: Dtype) {
  const base = { f32: patternF32, f16: patternF16, bf16: patternBf16 }[dtype]();
  const start = phase(name);
  const all = dtype === "f32" ? new Float32Array(count) : new Uint16Array(count);
  let at = 0;
  while (at < count) {
    const from = (start + at) % period;
    const length = Math.min(period - from, count - at);
    all.set(base.subarray(from, from + length), at);
    at += length;
  }
  return all;
}

let f32: Float32Array | undefined;
let f16: Uint16Array | undefined;
let bf16: Uint16Array | undefined;

function patternF32(): Float32Array {
  f32 ??= Float32Array.from(numerators, (n) => n / 64);
  return f32;
}

function patternBf16(): Uint16Array {
  bf16 ??= Uint16Array.from(new Uint32Array(patternF32().buffer), (bits) => bits >>> 16);
  return bf16;
}

function patternF16(): Uint16Array {
  // Exact values between 1/64 and 2 are normal in f16: the exponent is rebiased, the fraction loses only zeros.
  const half = (bits: number) => (bits === 0 ? 0 : ((bits >>> 16) & 0x8000) | (((bits & 0x7fffffff) >>> 13) - 0x1c000));
  f16 ??= Uint16Array.from(new Uint32Array(patternF32().buffer), half);
  return f16;
}

function phase(name: string): number {
  // FNV-1a: names of one letter must not begin next to each other, or q would be k shifted by a few elements.
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % period;
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
      const value = { label: name, buffer, rows, cols, pitch: cols, dtype, byteLength: values.byteLength };
      return { buffer, value };
    }) as Weight;
  }

  /** A parameter vector of a length that is a multiple of 8. */
  vector(name: string, length: number): Vector {
    const { storage } = this.tensor(name, 1, length);
    return { label: name, buffer: storage.buffer as GPUBuffer, length };
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
