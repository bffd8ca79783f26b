// Weights and vectors as what dispatches bind.

import { type Binding, bindBytes, bindingAlignment } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
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

/** How many rows of a weight one binding can cover, for cutting a product: with room to spare at both ends. */
export function weightRowsPerBinding({ limits }: DeviceFacts, weight: Weight): number {
  return (limits.bindingBytes - 2 * bindingAlignment) / weightRowBytes(weight);
}

/** The value of the WEIGHT_TYPE tunable. */
export function weightType(weight: Weight): number {
  return { f32: 0, bf16: 1, f16: 2 }[weight.dtype];
}
