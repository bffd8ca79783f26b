// What the tests of products, convolutions and attention share: weights as upload.ts lays them out, devices that between
// them take every way of splitting, and how each variant of an operation gets its turn.

import { expect, vi } from "vitest";
import { openDevice } from "../../src/engine/gpu/device.js";
import { Readback } from "../../src/engine/gpu/readback.js";
import type { Recorder } from "../../src/engine/gpu/recorder.js";
import { padded8 } from "../../src/engine/gpu/tensor.js";
import { type Variant, variantName } from "../../src/engine/ops/variants.js";
import type { Weight } from "../../src/engine/weights/upload.js";
import { createGpu } from "../../src/node/dawn.js";
import { type TestDevice, testLimits } from "../gpu.js";
import { halfBits, halfValue, type Inputs } from "./reference.js";

export type WeightDtype = Weight["dtype"];

const float = new Float32Array(1);
const word = new Uint32Array(float.buffer);

/** A number as a weight of the given dtype holds it (bf16: the upper half of f32). */
export function storedWeight(value: number, dtype: WeightDtype): number {
  if (dtype === "f16") return halfValue(halfBits(value));
  float[0] = value;
  if (dtype === "bf16") word[0] = (word[0] as number) & 0xffff0000;
  return float[0] as number;
}

function bf16Bits(value: number): number {
  float[0] = value;
  return (word[0] as number) >>> 16;
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
      elements[r * pitch + c] = dtype === "f32" ? value : dtype === "bf16" ? bf16Bits(value) : halfBits(value);
    }
  }
  const { device } = inputs;
  const buffer = inputs.own(device.createBuffer(label, elements.byteLength, 0x80 | 0x8));
  device.gpu.queue.writeBuffer(buffer, 0, new Uint8Array(elements.buffer));
  const { byteLength } = elements;
  const storage = { label, byteLength, buffer, isPlanned: false };
  return { label, storage, byteOffset: 0, rows, cols, pitch, dtype, byteLength };
}

/** A tuning that names the same variant for every workload; an operation that does not list it takes its own first. */
class SameChoice extends Map<string, string> {
  name: string | undefined;
  override get(): string | undefined {
    return this.name;
  }
}

/** A device whose operations take the variant of this name. */
export type TunedDevice = TestDevice & { choice: SameChoice };

/** A device of its own, opened with these options; matrix units are used where it has some, though it is a processor. */
export async function opened(options: Omit<Parameters<typeof openDevice>[0], "gpu" | "tuning">): Promise<TunedDevice> {
  const choice = new SameChoice();
  const limits = { matrixRows: 1, ...options.limits };
  const device = await openDevice({ gpu: await createGpu(), ...options, limits, tuning: choice });
  return { device, readback: new Readback(device), choice };
}

/** Runs with each of the variants in turn. */
export async function withEach(test: TunedDevice, variants: readonly Variant[], run: (variant: Variant) => unknown) {
  expect(variants).not.toEqual([]);
  try {
    for (const variant of variants) {
      test.choice.name = variantName(variant);
      await run(variant);
    }
  } finally {
    test.choice.name = undefined;
  }
}

/** Records, and sees to it that the variant's kernel was taken, with its tunables. */
export function recordWith<T>(variant: Variant, recorder: Recorder, record: () => T): T {
  const dispatch = vi.spyOn(recorder, "dispatch");
  const result = record();
  const taken = dispatch.mock.calls.map(([{ kernel }]) => ({ stem: kernel.layout.stem, ...kernel.options.tunables }));
  expect(taken).toContainEqual(expect.objectContaining({ stem: variant.stem, ...variant.tunables }));
  return result;
}

/** True for kernels that round their operands to f16. */
export function roundsOperands({ stem }: Variant): boolean {
  return /_subgroup_matrix$|_f16$/.test(stem);
}

/** Name and device of every configuration that lists other kernels or takes other splits. */
export const configurations: [string, () => Promise<TunedDevice>][] = [
  ["the default device", () => opened({ limits: testLimits() })],
  ["without subgroups", () => opened({ withoutFeatures: ["subgroups"] })],
  ["with bindings of 16 KiB", () => opened({ limits: { bindingBytes: 16 * 1024 } })],
  ["with dispatches of 1 MFLOP", () => opened({ limits: { dispatchFlops: 1e6 } })],
];
