// What the tests of tuning share: a device of their own, workloads, and variants with faults put beside an operation's own.

import { type Device, openDevice } from "../../../src/engine/gpu/device.js";
import { matmulWorkload } from "../../../src/engine/ops/matmul.js";
import type { Variant, Workload } from "../../../src/engine/ops/variants.js";
import type { TunedWorkload, TunedWorkloads } from "../../../src/engine/tuning/choices.js";
import { type TuneWorkloadsOptions, tuneWorkloads } from "../../../src/engine/tuning/tune-workloads.js";
import { testGpu } from "../open.js";
import { spyOn } from "../spied-gpu.js";

export const product = {
  rows: 200,
  k: 96,
  cols: 72,
  a: "f32",
  weight: "bf16",
  operands: "f32",
  isGated: false,
} as const;
export const matmul = matmulWorkload(product);
/** The kernel that runs on every device. */
export const portable: Variant = { stem: "matmul", tunables: {}, tileRows: 64, tileCols: 64 };

/** A device, and what a test does to it. */
export async function open(change: (device: Device) => void = () => undefined): Promise<Device> {
  const device = await openDevice({ gpu: spyOn(await testGpu()).gpu });
  change(device);
  return device;
}

export type TestOptions = Partial<TuneWorkloadsOptions> & { open?: () => Promise<Device> };

/** Choices by the workloads' names. */
export async function tuneAll(workloads: Workload[], options: TestOptions = {}): Promise<TunedWorkloads> {
  const tuned = await tuneWorkloads(workloads, options.open ?? open, { seconds: 60, ...options });
  return Object.fromEntries(Object.values(tuned).map((choice) => [choice.name, choice]));
}

export async function tuneOne(workload: Workload, options?: TestOptions): Promise<TunedWorkload> {
  return (await tuneAll([workload], options))[workload.name]!;
}

/** A workload with these variants, and one more that they are checked against: `sound` under the name "reference". */
export function among(workload: Workload, sound: Variant, ...variants: Variant[]): Workload {
  const reference: Variant = { ...sound, stem: "reference" };
  return {
    ...workload,
    portable: reference.stem,
    variants: () => [...variants, reference],
    sample: (recorder, inputs, part, variant) =>
      workload.sample(recorder, inputs, part, variant === reference ? sound : variant),
  };
}
