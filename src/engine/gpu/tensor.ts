// Tensors: shape, dtype and where the elements live. A tensor owns no memory; its storage does.
// Every tensor is a matrix [rows, cols]: tokens and channels, or pixels and channels ([h·w, C], channels last).
// Rows are `pitch` elements apart; whoever writes the last column of a row writes zeros up to the pitch.

import { assert } from "../../errors.js";
import type { Device } from "./device.js";
import { bufferUsage } from "./usage.js";

/** `f16` is carried as pairs in u32 words (pack2x16float), so that devices without `shader-f16` have it too. */
export type Dtype = "f32" | "f16" | "u32";

/** Bytes a tensor lives in: a buffer of its own, or a place that a buffer plan assigns before the first run. */
export type Storage = { label: string; byteLength: number; buffer: GPUBuffer | undefined; isPlanned: boolean };

export type Tensor = {
  label: string;
  storage: Storage;
  dtype: Dtype;
  rows: number;
  cols: number;
  /** Elements from one row to the next, a multiple of 8. */
  pitch: number;
  /** Where row 0 begins in the storage. */
  byteOffset: number;
};

export const tensorUsage = bufferUsage.STORAGE | bufferUsage.COPY_SRC | bufferUsage.COPY_DST;

export function elementBytes(dtype: Dtype): number {
  return dtype === "f16" ? 2 : 4;
}

/** Rounds up to a multiple of 8: the pitch of rows and the padding of weights. */
export function padded8(n: number): number {
  return Math.ceil(n / 8) * 8;
}

export function rowBytes(tensor: Tensor): number {
  return tensor.pitch * elementBytes(tensor.dtype);
}

export function byteLength(tensor: Tensor): number {
  return tensor.rows * rowBytes(tensor);
}

/** Describes a [rows, cols] tensor on the given storage. */
export function tensorOn(storage: Storage, label: string, rows: number, cols: number, dtype: Dtype = "f32"): Tensor {
  assert(rows > 0 && cols > 0, () => `tensor "${label}" got shape [${rows}, ${cols}], expected positive extents`);
  return { label, storage, dtype, rows, cols, pitch: padded8(cols), byteOffset: 0 };
}

/** Bytes that a [rows, cols] tensor takes. */
export function tensorBytes(rows: number, cols: number, dtype: Dtype = "f32"): number {
  return rows * padded8(cols) * elementBytes(dtype);
}

/** Describes a tensor that {@link realizeTensor} gives a buffer of its own, so that its bytes can be counted before. */
export function ownTensor(label: string, rows: number, cols: number, dtype: Dtype = "f32"): Tensor {
  const size = tensorBytes(rows, cols, dtype);
  return tensorOn({ label, byteLength: size, buffer: undefined, isPlanned: false }, label, rows, cols, dtype);
}

/** Makes the buffer, zero at first; the caller releases it with {@link destroyTensor}. */
export function realizeTensor(device: Device, { label, storage }: Tensor): void {
  assert(!storage.isPlanned && !storage.buffer, `"${label}" has a buffer, or a place that its plan assigns`);
  storage.buffer = device.createBuffer(label, storage.byteLength, tensorUsage);
}

/** {@link ownTensor} and {@link realizeTensor} in one. */
export function createTensor(device: Device, label: string, rows: number, cols: number, dtype: Dtype = "f32"): Tensor {
  const tensor = ownTensor(label, rows, cols, dtype);
  realizeTensor(device, tensor);
  return tensor;
}

export function destroyTensor(device: Device, tensor: Tensor): void {
  if (tensor.storage.buffer && !tensor.storage.isPlanned) device.destroyBuffer(tensor.storage.buffer);
  tensor.storage.buffer = undefined;
}

/** The rows [begin, end) of a tensor, on the same storage. */
export function sliceRows(tensor: Tensor, begin: number, end: number): Tensor {
  assert(
    0 <= begin && begin < end && end <= tensor.rows,
    () => `"${tensor.label}" has ${tensor.rows} rows, got the range [${begin}, ${end})`,
  );
  return { ...tensor, rows: end - begin, byteOffset: tensor.byteOffset + begin * rowBytes(tensor) };
}

/** Writes a row-major [rows, cols] f32 matrix to the device, zero-padding every row to the pitch. */
export function writeTensor(device: Device, tensor: Tensor, data: Float32Array): void {
  const { rows, cols, pitch } = tensor;
  assert(tensor.dtype === "f32", `"${tensor.label}" is ${tensor.dtype}, expected f32`);
  assert(data.length === rows * cols, `"${tensor.label}" takes ${rows}×${cols} values, got ${data.length}`);
  const buffer = tensor.storage.buffer;
  assert(buffer, `"${tensor.label}" has no buffer yet`);
  device.check();
  let padded = data;
  if (pitch !== cols) {
    padded = new Float32Array(rows * pitch);
    for (let r = 0; r < rows; r++) padded.set(data.subarray(r * cols, (r + 1) * cols), r * pitch);
  }
  device.gpu.queue.writeBuffer(buffer, tensor.byteOffset, padded.buffer, padded.byteOffset, padded.byteLength);
}

/** Copies tensors' rows to others of the same shapes and dtypes, in the queue's order. */
export function copyTensors(device: Device, pairs: readonly (readonly [from: Tensor, to: Tensor])[]): void {
  device.check();
  const encoder = device.gpu.createCommandEncoder();
  for (const [from, to] of pairs) {
    const size = byteLength(from);
    assert(size === byteLength(to), `copy of ${size} bytes to "${to.label}" of ${byteLength(to)}`);
    assert(from.storage.buffer && to.storage.buffer, `copy between "${from.label}" and "${to.label}" without buffers`);
    encoder.copyBufferToBuffer(from.storage.buffer, from.byteOffset, to.storage.buffer, to.byteOffset, size);
  }
  device.gpu.queue.submit([encoder.finish()]);
}
