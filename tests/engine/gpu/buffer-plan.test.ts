// BufferPlan: scratch tensors that live at the same time never share a buffer, and what one list keeps survives the
// others. Needs no device: a plan only asks one to make buffers.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BufferPlan } from "../../../src/engine/gpu/buffer-plan.js";
import type { Device } from "../../../src/engine/gpu/device.js";
import { Recorder } from "../../../src/engine/gpu/recorder.js";
import type { Tensor } from "../../../src/engine/gpu/tensor.js";

function fakeDevice(): Device {
  const createBuffer = (label: string, size: number) => ({ label, size });
  return { limits: { bindingBytes: 1e9 }, createBuffer } as unknown as Device;
}

const bufferOf = (tensor: Tensor) => tensor.storage.buffer;

describe("buffer plan", () => {
  test("tensors whose lifetimes overlap have buffers of their own, large enough", () => {
    const copies = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { minLength: 1, maxLength: 30 });
    // Few sizes, so that most pairs can be copied.
    const sizes = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 10, maxLength: 10 });
    fc.assert(
      fc.property(sizes, copies, (rows, pairs) => {
        const device = fakeDevice();
        const plan = new BufferPlan();
        const recorder = new Recorder(device);
        const tensors = rows.map((n, i) => recorder.scratch(`t${i}`, n, 8));
        const uses = pairs.filter(([a, b]) => rows[a] === rows[b] && a !== b);
        for (const [a, b] of uses) recorder.copy(tensors[a] as Tensor, tensors[b] as Tensor);
        recorder.finish("list", plan);
        plan.realize(device);
        const touches = (t: number) => uses.flatMap((pair, at) => (pair.includes(t) ? [at] : []));
        for (let i = 0; i < 10; i++) {
          const [a, first] = [touches(i), tensors[i] as Tensor];
          if (a.length > 0) expect(bufferOf(first)!.size).toBeGreaterThanOrEqual(first.storage.byteLength);
          for (let j = 0; j < i; j++) {
            const b = touches(j);
            if (a.length === 0 || b.length === 0 || Math.max(...a) < Math.min(...b) || Math.max(...b) < Math.min(...a))
              continue;
            expect(bufferOf(first)).not.toBe(bufferOf(tensors[j] as Tensor));
          }
        }
      }),
    );
  });

  test("one tensor after the other share two buffers, however many there are", () => {
    const device = fakeDevice();
    const plan = new BufferPlan();
    for (const rows of [4, 2]) {
      const recorder = new Recorder(device);
      let tensor = recorder.scratch("first", rows, 8);
      for (let i = 0; i < 1000; i++) {
        const next = recorder.scratch(`${i}`, rows, 8);
        recorder.copy(tensor, next);
        tensor = next;
      }
      recorder.finish("chain", plan);
    }
    expect(plan.sizes).toEqual([128, 128]);
  });

  test("a tensor that one list keeps has its buffer for itself in every list", () => {
    const device = fakeDevice();
    const plan = new BufferPlan();
    const prompt = new Recorder(device);
    const [x, context] = [prompt.scratch("x", 4, 8), prompt.scratch("context", 4, 8)];
    prompt.copy(x, context);
    prompt.keep(context);
    prompt.finish("prompt", plan);
    const step = new Recorder(device);
    const later = ["a", "b", "c"].map((label) => step.scratch(label, 4, 8));
    step.copy(context, later[0] as Tensor);
    step.copy(later[0] as Tensor, later[1] as Tensor);
    step.copy(later[1] as Tensor, later[2] as Tensor);
    step.finish("step", plan);
    plan.realize(device);
    expect(bufferOf(context)).toBeDefined();
    for (const tensor of [x, ...later]) expect(bufferOf(tensor)).not.toBe(bufferOf(context));
  });

  test("a tensor that no list kept cannot be used by the next one", () => {
    const device = fakeDevice();
    const plan = new BufferPlan();
    const first = new Recorder(device);
    const [x, y] = [first.scratch("x", 4, 8), first.scratch("y", 4, 8)];
    first.copy(x, y);
    first.finish("first", plan);
    const second = new Recorder(device);
    second.copy(y, second.scratch("z", 4, 8));
    expect(() => second.finish("second", plan)).toThrow(/"y" comes from an earlier list/);
  });

  test("a buffer that exists does not take a tensor that is larger", () => {
    const device = fakeDevice();
    const plan = new BufferPlan();
    for (const rows of [4, 400]) {
      const recorder = new Recorder(device);
      const [x, y] = [recorder.scratch("x", rows, 8), recorder.scratch("y", rows, 8)];
      recorder.copy(x, y);
      recorder.finish("list", plan);
      plan.realize(device);
      expect(bufferOf(y)!.size).toBeGreaterThanOrEqual(y.storage.byteLength);
    }
  });
});
