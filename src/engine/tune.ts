// Tuning for pictures: which kernels are the fastest on a device for the workloads of a checkpoint and a picture size.
// The workloads come from planning, which records them all. Measures on a device of its own, so that a failure there
// leaves the engine's device alone.

import { requestCancelled } from "../errors.js";
import { type OpenCheckpoint, openCheckpoint } from "./checkpoint.js";
import { checkPrecision, chooseOperands, openDeviceFor } from "./engine.js";
import type { DeviceFacts, DeviceLimits } from "./gpu/facts.js";
import { planMemory } from "./memory.js";
import type { Workload } from "./ops/variants.js";
import { expectedShape, type PictureShape, type Precision } from "./request.js";
import type { TunedWorkloads } from "./tuning/choices.js";
import { type TuneWorkloadsOptions, tuneWorkloads } from "./tuning/tune-workloads.js";
import { workloadTally } from "./tuning/workload.js";
import type { UsedPer } from "./weights/slots.js";
import type { CheckpointSource } from "./weights/source.js";

export type TuneOptions = TuneWorkloadsOptions & {
  /** A page's `navigator.gpu`, or Dawn's. */
  gpu: GPU;
  source: CheckpointSource;
  /** As the engine's. */
  precision?: Precision;
  limits?: Partial<DeviceLimits>;
  /** The picture's size; default: the checkpoint's. */
  width?: number;
  height?: number;
};

/**
 * Chooses kernels for the pictures of one checkpoint and size. Returns the choices for every workload that has several
 * variants on this device, the most expensive one first: measured as far as the time allows, else the built-in ones.
 * Errors: those of opening the checkpoint and the device, `request.size_invalid`, `request.option_invalid` for a
 * precision, `request.cancelled`. A device that is lost to a variant is no error: the variant is excluded.
 */
export async function tuneKernels(options: TuneOptions): Promise<TunedWorkloads> {
  const { gpu, limits, source, precision = "auto", width, height, signal } = options;
  checkPrecision(precision);
  const checkpoint = await openCheckpoint(source);
  const expected = expectedShape({ width, height }, checkpoint.model.bounds);
  const open = () => openDeviceFor(precision, { gpu, limits, signal });
  try {
    const first = await open();
    const opened = [first];
    let workloads: Workload[];
    try {
      workloads = workloadsOf(first, checkpoint, expected, chooseOperands(first, precision));
    } catch (error) {
      first.close();
      throw error;
    }
    return await tuneWorkloads(workloads, async () => opened.pop() ?? open(), options);
  } catch (error) {
    if (signal?.aborted) throw requestCancelled(error, "tuning");
    throw error;
  }
}

/** The workloads of a picture of this shape and so many steps, in the order in which they are measured. */
function workloadsOf(
  facts: DeviceFacts,
  checkpoint: OpenCheckpoint,
  { shape, steps }: { shape: PictureShape; steps: number },
  operands: "f32" | "f16",
): Workload[] {
  const tally = workloadTally(facts);
  const onWorkload = (workload: Workload, per: UsedPer) => tally.add(workload, per === "step" ? steps : 1);
  planMemory(checkpoint, shape, { operands, facts, onWorkload });
  return tally.ranked();
}
