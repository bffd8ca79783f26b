// Recording needs no device: what is wrong with a dispatch is told when it is recorded, and so is what a list takes.

import { expect, it } from "vitest";
import { BufferPlan } from "../../../src/engine/gpu/buffer-plan.js";
import { bindRows, type Dispatch } from "../../../src/engine/gpu/commands.js";
import { ordinaryGpu } from "../../../src/engine/gpu/facts.js";
import { kernel } from "../../../src/engine/gpu/kernel.js";
import { Recorder } from "../../../src/engine/gpu/recorder.js";
import { copyColumns } from "../../../src/engine/ops/columns.js";
import { matmul } from "../../../src/engine/ops/matmul.js";
import type { Workload } from "../../../src/engine/ops/variants.js";

/** A dispatch of copy_columns from one scratch tensor to another, with whatever is wrong about it. */
function record(change: (right: Dispatch, recorder: Recorder) => Partial<Dispatch>): void {
  const recorder = new Recorder({ ...ordinaryGpu, limits: { ...ordinaryGpu.limits, bindingBytes: 1024 } });
  const [x, y] = [recorder.scratch("x", 2, 8), recorder.scratch("y", 2, 8)];
  const right: Dispatch = {
    kernel: kernel("copy_columns"),
    label: "copy",
    bindings: { x: bindRows(x).binding, y: bindRows(y).binding },
    params: { rows: 2, cols: 8, x_offset: 0, x_pitch: 8, y_offset: 0, y_pitch: 8, y_cols: 8 },
    workgroups: [1, 1, 1],
    ...{ flops: 1, bytes: 1 },
  };
  recorder.dispatch({ ...right, ...change(right, recorder) });
}

it.each<[string, Parameters<typeof record>[0], string]>([
  [
    "a binding that the kernel does not declare",
    ({ bindings }) => ({ bindings: { ...bindings, z: bindings.x! } }),
    'kernel copy_columns declares no storage binding "z"',
  ],
  [
    "a binding above the limit",
    ({ bindings }, recorder) => ({ bindings: { ...bindings, x: bindRows(recorder.scratch("x", 33, 8)).binding } }),
    'copy: "x" binds 1056 bytes, the limit is 1024',
  ],
  [
    "one storage read and written",
    ({ bindings }) => ({ bindings: { x: bindings.x!, y: bindings.x! } }),
    'copy: "x" is bound as read_write and once more',
  ],
  [
    "a parameter that is left out",
    ({ params: { y_pitch: _, ...params } }) => ({ params }),
    "copy: parameter y_pitch of copy_columns is undefined",
  ],
  [
    "too many workgroups a side",
    () => ({ workgroups: [1, 65536, 1] }),
    "copy: 1,65536,1 workgroups of copy_columns, expected 1 to 65535 a side",
  ],
])("%s is refused", (_, change, message) => {
  expect(() => record(() => ({}))).not.toThrow();
  expect(() => record(change)).toThrow(message);
});

it("what a list takes is known before there is a device, and every workload is told, each time", () => {
  const told: Workload[] = [];
  const recorder = new Recorder(ordinaryGpu, { onWorkload: (workload: Workload) => void told.push(workload) });
  const storage = { label: "weight", byteLength: 2048, buffer: undefined, isPlanned: false };
  const weight = {
    ...{ label: "weight", storage, byteOffset: 0, rows: 16, cols: 32, pitch: 32 },
    dtype: "f32" as const,
  };
  const x = recorder.scratch("x", 5, 32);
  const products = [0, 1].map(() => matmul(recorder, x, { ...weight, byteLength: 2048 }));
  const both = recorder.scratch("both", 5, 32);
  for (const [i, product] of products.entries()) copyColumns(recorder, product, both, 16 * i);
  recorder.keep(both);
  const plan = new BufferPlan();
  const list = recorder.finish("list", plan);
  expect(told.map(({ name }) => name)).toEqual(Array(2).fill("matmul 8×32×16 f32×f32"));
  // Four dispatches' parameters and two dummies, 256 bytes each.
  expect([list.label, list.byteLength]).toEqual(["list", 6 * 256]);
  expect(plan.sizes.toSorted((a, b) => a - b)).toEqual([320, 320, 640, 640]);
});
