// Weights and vectors as what dispatches bind.

import { type Binding, bindBytes } from "../gpu/commands.js";
import { padded8 } from "../gpu/tensor.js";
import type { Vector, Weight } from "../weights/upload.js";

/** Binds a whole vector; kernels index it from 0. */
export function bindVector({ storage, byteOffset, length }: Vector): Binding {
  return bindBytes(storage, byteOffset, 4 * padded8(length)).binding;
}

/** Binds rows [begin, end) of a weight; `groups` is where they begin in the binding, in groups of 8 elements. */
export function bindWeightRows(weight: Weight, begin: number, end: number): { binding: Binding; groups: number } {
  const bytes = weightRowBytes(weight);
  const { binding, remainder } = bindBytes(weight.storage, weight.byteOffset + begin * bytes, (end - begin) * bytes);
  return { binding, groups: remainder / (bytes / (weight.pitch / 8)) };
}

export function weightRowBytes(weight: Weight): number {
  return weight.pitch * (weight.dtype === "f32" ? 4 : 2);
}

/** The value of the WEIGHT_TYPE tunable. */
export function weightType(weight: Weight): number {
  return { f32: 0, bf16: 1, f16: 2 }[weight.dtype];
}
