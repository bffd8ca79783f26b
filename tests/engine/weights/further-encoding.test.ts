// An encoding that is not there yet: that another row is all it takes, also where its bits are not the device's. F64 stands
// for all that are widened when they are loaded.

import { expect, it, vi } from "vitest";
import type { Encoding } from "../../../src/engine/weights/encodings.js";
import { openTensorFiles } from "../../../src/engine/weights/files/tensor-files.js";
import { slotBuilder } from "../../../src/engine/weights/slots.js";
import { bytesSource } from "../../../src/engine/weights/source.js";
import { loadWeights } from "../../../src/engine/weights/upload.js";
import { fakeDevice } from "./fake-device.js";
import { failure, safetensorsOf } from "./fixtures.js";

vi.mock("../../../src/engine/weights/encodings.js", async (importActual) => {
  const actual = await importActual<typeof import("../../../src/engine/weights/encodings.js")>();
  const f64: Encoding = {
    name: "F64",
    elementBytes: 8,
    device: undefined,
    finite: undefined,
    widen: (bytes, count, target, offset) =>
      new Float32Array(target.buffer, target.byteOffset + 4 * offset, count).set(
        new Float64Array(bytes.buffer, bytes.byteOffset, count),
      ),
  };
  return { ...actual, encodingOf: (name: string) => (name === "F64" ? f64 : actual.encodingOf(name)) };
});

const doubles = (count: number, first = 1) => Float64Array.from({ length: count }, (_, i) => first + i / 4);

async function load(matrix: Float64Array) {
  const builder = slotBuilder({ name: "part", usedPer: "step", folder: "part", stem: "model" });
  builder.add("matrix", "m", "m", [3, 5]);
  builder.add("conv", "c", "c", [2, 3, 1, 2]);
  builder.add("vector", "v", "v", [3]);
  const bytes = (values: Float64Array) => new Uint8Array(values.buffer);
  const file = safetensorsOf({
    m: { dtype: "F64", shape: [3, 5], data: bytes(matrix) },
    c: { dtype: "F64", shape: [2, 3, 1, 2], data: bytes(doubles(12)) },
    v: { dtype: "F64", shape: [3], data: bytes(doubles(3)) },
  });
  const files = await openTensorFiles(bytesSource(new Map([["part/model.safetensors", file]])), "part", "model");
  const device = fakeDevice();
  const set = await loadWeights(device, files, builder.table);
  const floats = (weight: { storage: { buffer: unknown } }, count: number) =>
    new Float32Array(device.memory.get(weight.storage.buffer as GPUBuffer)!.slice(0, 4 * count).buffer);
  return { set, floats };
}

it("is loaded as matrix, convolution and vector", async () => {
  const { set, floats } = await load(doubles(15));
  const matrix = set.matrix("m");
  expect(matrix).toMatchObject({ dtype: "f32", rows: 3, cols: 5, pitch: 8 });
  expect([...floats(matrix, 16)]).toEqual([1, 1.25, 1.5, 1.75, 2, 0, 0, 0, 2.25, 2.5, 2.75, 3, 3.25, 0, 0, 0]);
  // [O, I, taps] = [2, 3, 2] to [O, taps, 8]
  expect([...floats(set.conv("c"), 16)]).toEqual([1, 1.5, 2, 0, 0, 0, 0, 0, 1.25, 1.75, 2.25, 0, 0, 0, 0, 0]);
  expect([...floats(set.vector("v"), 3)]).toEqual([1, 1.25, 1.5]);
});

it("is refused where it widens to what is no number", async () => {
  for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY, 1e300]) {
    await failure(load(doubles(15).fill(bad, 7, 8)), "weights.non_finite");
  }
});
