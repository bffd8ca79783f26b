// Weights and vectors as what dispatches bind.

import { type Binding, bindBytes } from "../gpu/commands.js";
import type { Storage } from "../gpu/tensor.js";
import type { Vector, Weight } from "../weights/upload.js";

const storages = new WeakMap<GPUBuffer, Storage>();

/** The storage of a buffer that the weights own; always the same object for the same buffer. */
export function storageOf({ label, buffer }: { label: string; buffer: GPUBuffer }): Storage {
  let storage = storages.get(buffer);
  if (!storage) {
    storage = { label, byteLength: buffer.size, buffer, isPlanned: false };
    storages.set(buffer, storage);
  }
  return storage;
}

/** Binds a whole vector; kernels index it from 0. */
export function bindVector(vector: Vector): Binding {
  return bindBytes(storageOf(vector), 0, vector.buffer.size).binding;
}

/** Binds rows [begin, end) of a weight; `groups` is where they begin in the binding, in groups of 8 elements. */
export function bindWeightRows(weight: Weight, begin: number, end: number): { binding: Binding; groups: number } {
  const bytes = weightRowBytes(weight);
  const { binding, remainder } = bindBytes(storageOf(weight), begin * bytes, (end - begin) * bytes);
  return { binding, groups: remainder / (bytes / (weight.pitch / 8)) };
}

export function weightRowBytes(weight: Weight): number {
  return weight.pitch * (weight.dtype === "f32" ? 4 : 2);
}

/** The value of the WEIGHT_TYPE tunable. */
export function weightType(weight: Weight): number {
  return { f32: 0, bf16: 1, f16: 2 }[weight.dtype];
}
