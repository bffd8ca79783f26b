// What a recorded list consists of: dispatches, copies, and work of the host between them, bound to ranges of storages.
// WebGPU tracks usage per buffer, so a plan assigns whole buffers: no dispatch ever sees one buffer both as `read` and
// as `read_write`.

import type { Kernel } from "./kernel.js";
import { elementBytes, rowBytes, type Storage, type Tensor } from "./tensor.js";

/** Storage buffer bindings begin at multiples of this (the default and largest minStorageBufferOffsetAlignment). */
export const bindingAlignment = 256;

/** A range of a storage, aligned as bindings must be. */
export type Binding = { storage: Storage; offset: number; size: number };

export type Dispatch = {
  kernel: Kernel;
  label: string;
  /** By variable name; those left out get a dummy. */
  bindings: Record<string, Binding>;
  /** By member name of Params; every member must be given. */
  params: Record<string, number>;
  workgroups: [number, number, number];
  flops: number;
  bytes: number;
};

export type Copy = { from: Binding; to: Binding };
/** Work of the host between two submissions. */
export type Fill = { storages: readonly Storage[]; work: (signal?: AbortSignal) => Promise<void> };
/** An element of a list. */
export type Command =
  | { dispatch: Dispatch; copy?: undefined; fill?: undefined }
  | { copy: Copy; dispatch?: undefined; fill?: undefined }
  | { fill: Fill; dispatch?: undefined; copy?: undefined };

/**
 * Binds rows [begin, end) of a tensor. The binding starts at the alignment below, so kernels get `offset`, the
 * elements from the binding's start to the first row.
 */
export function bindRows(tensor: Tensor, begin = 0, end = tensor.rows): { binding: Binding; offset: number } {
  const start = tensor.byteOffset + begin * rowBytes(tensor);
  const { binding, remainder } = bindBytes(tensor.storage, start, (end - begin) * rowBytes(tensor));
  return { binding, offset: remainder / elementBytes(tensor.dtype) };
}

/** Binds the bytes [start, start + length) of a storage; `remainder` is where they begin in the binding. */
export function bindBytes(storage: Storage, start: number, length: number): { binding: Binding; remainder: number } {
  const offset = Math.floor(start / bindingAlignment) * bindingAlignment;
  const remainder = start - offset;
  return { binding: { storage, offset, size: Math.ceil((remainder + length) / 4) * 4 }, remainder };
}
