// Inputs that operations are measured on, by tuning and by the benchmarks: seeded values, written in pieces. Owns their
// buffers. Values are multiples of 1/64 below 2, exact in f32, bf16 and f16 alike, so that operands that a kernel may
// round to f16 stay what they are and a difference between two kernels comes from their sums. A prime period keeps rows
// different.

import type { Device } from "../gpu/device.js";
import { createTensor, padded8, type Tensor, tensorUsage } from "../gpu/tensor.js";
import type { SampleInputs } from "../ops/variants.js";
import type { Vector, Weight } from "../weights/upload.js";

const period = 65521;
const chunkBytes = 4 * 1024 * 1024;

type Elements = Weight["dtype"];
type Made = Tensor | Weight | Vector;

/** Makes each input once; {@link close} destroys them. */
export class MadeInputs implements SampleInputs {
  readonly #device: Device;
  readonly #made = new Map<string, Made>();
  readonly #buffers: GPUBuffer[] = [];

  constructor(device: Device) {
    this.#device = device;
  }

  tensor(label: string, rows: number, cols: number, dtype: "f32" | "f16" = "f32"): Tensor {
    return this.#once(`${label} ${rows}×${cols} ${dtype}`, () => {
      const tensor = createTensor(this.#device, label, rows, cols, dtype);
      const buffer = tensor.storage.buffer as GPUBuffer;
      this.#buffers.push(buffer);
      this.#write(buffer, label, rows, cols, dtype);
      return tensor;
    });
  }

  weight(label: string, rows: number, cols: number, dtype: Elements): Weight {
    return this.#once(`${label} ${rows}×${cols} ${dtype}`, () => {
      const pitch = padded8(cols);
      const byteLength = rows * pitch * (dtype === "f32" ? 4 : 2);
      const buffer = this.#device.createBuffer(label, byteLength, tensorUsage);
      this.#buffers.push(buffer);
      this.#write(buffer, label, rows, cols, dtype);
      const storage = { label, byteLength, buffer, isPlanned: false };
      return { label, storage, byteOffset: 0, rows, cols, pitch, dtype, byteLength };
    });
  }

  vector(label: string, length: number): Vector {
    const { storage } = this.tensor(label, 1, length);
    return { label, storage, byteOffset: 0, length };
  }

  close(): void {
    for (const buffer of this.#buffers) this.#device.destroyBuffer(buffer);
    this.#buffers.length = 0;
    this.#made.clear();
  }

  #once<T extends Made>(name: string, make: () => T): T {
    const made = (this.#made.get(name) as T | undefined) ?? make();
    this.#made.set(name, made);
    return made;
  }

  #write(buffer: GPUBuffer, label: string, rows: number, cols: number, dtype: Elements): void {
    const pattern = patternOf(label, dtype);
    const pitch = padded8(cols);
    const rowBytes = pitch * pattern.BYTES_PER_ELEMENT;
    const step = Math.max(1, Math.floor(chunkBytes / rowBytes));
    const chunk = dtype === "f32" ? new Float32Array(step * pitch) : new Uint16Array(step * pitch);
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row);
      for (let r = 0; r < count; r++) fillRow(chunk.subarray(r * pitch, r * pitch + cols), pattern, (row + r) * cols);
      this.#device.gpu.queue.writeBuffer(buffer, row * rowBytes, chunk.buffer, 0, count * rowBytes);
    }
  }
}

type Values = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

/** The first elements that a label stands for, row after row without padding, for peers that compute the same. */
export function sampleValues(label: string, count: number): Float32Array<ArrayBuffer>;
export function sampleValues(label: string, count: number, dtype: Elements): Values;
export function sampleValues(label: string, count: number, dtype: Elements = "f32"): Values {
  const values = dtype === "f32" ? new Float32Array(count) : new Uint16Array(count);
  fillRow(values, patternOf(label, dtype), 0);
  return values;
}

/** Repeats the pattern over a row, from element `first` of the endless repetition. */
function fillRow(row: Values, pattern: Values, first: number): void {
  let from = first % period;
  for (let at = 0; at < row.length; ) {
    const count = Math.min(row.length - at, period - from);
    row.set(pattern.subarray(from, from + count), at);
    at += count;
    from = 0;
  }
}

/** One period, as f32 values or as the bits of bf16 or f16; each label has its own numbers (mulberry32). */
function patternOf(label: string, dtype: Elements): Values {
  let state = 0x811c9dc5;
  for (let i = 0; i < label.length; i++) state = Math.imul(state ^ label.charCodeAt(i), 0x01000193);
  const values = Float32Array.from({ length: period }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) % 255) / 64 - 127 / 64;
  });
  if (dtype === "f32") return values;
  return Uint16Array.from(new Uint32Array(values.buffer), dtype === "bf16" ? (bits) => bits >>> 16 : f16Bits);
}

/** For multiples of 1/64 below 2, which are normal in f16: the exponent is rebiased, the fraction loses only zeros. */
function f16Bits(bits: number): number {
  return bits << 1 === 0 ? 0 : ((bits >>> 16) & 0x8000) | (((bits & 0x7fffffff) >>> 13) - 0x1c000);
}
