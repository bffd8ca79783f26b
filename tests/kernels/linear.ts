// What the tests of products, convolutions and attention share: weights as upload.ts lays them out, and the devices
// that between them choose every kernel and every way of splitting.

import { type Device, openDevice } from "../../src/engine/gpu/device.js";
import { Readback } from "../../src/engine/gpu/readback.js";
import { padded8 } from "../../src/engine/gpu/tensor.js";
import type { Weight } from "../../src/engine/weights/upload.js";
import { createGpu } from "../../src/node/dawn.js";
import { type TestDevice, testDevice } from "../gpu.js";
import { halfBits, halfValue, type Inputs } from "./reference.js";

export type WeightDtype = Weight["dtype"];

/** A number as a weight of the given dtype holds it (bf16: the upper half of f32). */
export function storedWeight(value: number, dtype: WeightDtype): number {
  if (dtype === "f16") return halfValue(halfBits(value));
  const words = new Uint32Array(Float32Array.of(value).buffer);
  if (dtype === "bf16") words[0] = (words[0] as number) & 0xffff0000;
  return new Float32Array(words.buffer)[0] as number;
}

/** A [rows, cols] weight of values that `storedWeight` has rounded; rows zero-padded to a multiple of 8 elements. */
export function weightOf(
  inputs: Inputs,
  label: string,
  rows: number,
  cols: number,
  values: ArrayLike<number>,
  dtype: WeightDtype,
): Weight {
  const pitch = padded8(cols);
  const elements = dtype === "f32" ? new Float32Array(rows * pitch) : new Uint16Array(rows * pitch);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const value = values[r * cols + c] as number;
      const bits = () => (new Uint32Array(Float32Array.of(value).buffer)[0] as number) >>> 16;
      elements[r * pitch + c] = dtype === "f32" ? value : dtype === "bf16" ? bits() : halfBits(value);
    }
  }
  const { device } = inputs;
  const buffer = inputs.own(device.createBuffer(label, elements.byteLength, 0x80 | 0x8));
  device.gpu.queue.writeBuffer(buffer, 0, new Uint8Array(elements.buffer));
  const { byteLength } = elements;
  const storage = { label, byteLength, buffer, isPlanned: false };
  return { label, storage, byteOffset: 0, rows, cols, pitch, dtype, byteLength };
}

/** A device of its own, opened with these options. */
export async function opened(options: Omit<Parameters<typeof openDevice>[0], "gpu">): Promise<TestDevice> {
  const device: Device = await openDevice({ gpu: await createGpu(), ...options });
  return { device, readback: new Readback(device) };
}

/** Name and device of every configuration that chooses other kernels or other splits. */
export const configurations: [string, () => Promise<TestDevice>][] = [
  ["the default device", testDevice],
  ["without subgroups", () => opened({ withoutFeatures: ["subgroups"] })],
  ["with bindings of 16 KiB", () => opened({ limits: { bindingBytes: 16 * 1024 } })],
  ["with dispatches of 1 MFLOP", () => opened({ limits: { dispatchFlops: 1e6 } })],
];
