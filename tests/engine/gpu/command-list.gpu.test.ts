// Lists on a device: what was recorded with nothing but facts runs there, once it was prepared.

import { expect, it } from "vitest";
import { BufferPlan } from "../../../src/engine/gpu/buffer-plan.js";
import { openDevice } from "../../../src/engine/gpu/device.js";
import { ordinaryGpu } from "../../../src/engine/gpu/facts.js";
import { Readback } from "../../../src/engine/gpu/readback.js";
import { Recorder } from "../../../src/engine/gpu/recorder.js";
import { ownTensor, realizeTensor, writeTensor } from "../../../src/engine/gpu/tensor.js";
import { silu } from "../../../src/engine/ops/elementwise.js";
import { testGpu } from "../open.js";
import { resetCounts, type SpiedDevice, spyOn } from "../spied-gpu.js";

/** silu of a [3, 5] tensor, recorded on any CPU. */
function recorded() {
  const x = ownTensor("x", 3, 5);
  const recorder = new Recorder(ordinaryGpu);
  const y = silu(recorder, x);
  recorder.keep(y);
  const plan = new BufferPlan();
  return { x, y, plan, list: recorder.finish("list", plan) };
}

const values = Float32Array.from({ length: 15 }, (_, i) => i - 7);

it("a list that was recorded without a device runs on one, and on the next one compiles anew", async () => {
  const spy = spyOn(await testGpu());
  for (const place of [0, 1]) {
    const device = await openDevice({ gpu: spy.gpu });
    const spied = spy.devices[place] as SpiedDevice;
    const readback = new Readback(device);
    for (const pipelines of [1, 0]) {
      const { x, y, plan, list } = recorded();
      realizeTensor(device, x);
      writeTensor(device, x, values);
      plan.realize(device);
      resetCounts(spied);
      await list.prepare(device);
      expect(spied.counts).toMatchObject({ modules: pipelines, pipelines, groups: 1 });
      await list.submit();
      const expected = values.map((value) => value / (1 + Math.exp(-value)));
      for (const [i, value] of (await readback.f32(y)).entries()) expect(value).toBeCloseTo(expected[i]!, 5);
      list.close();
      await expect(list.submit()).rejects.toThrow("list was not prepared");
    }
    device.close();
  }
});

it("a list belongs to the device that it was allocated on", async () => {
  const [first, second] = [await openDevice({ gpu: await testGpu() }), await openDevice({ gpu: await testGpu() })];
  const { list } = recorded();
  await expect(list.submit()).rejects.toThrow("list was not prepared");
  list.allocate(first);
  await expect(list.prepare(second)).rejects.toThrow("list was allocated on another device");
  expect(first.allocatedBytes).toBe(list.byteLength);
  list.close();
  expect(first.allocatedBytes).toBe(0);
  for (const device of [first, second]) device.close();
});
