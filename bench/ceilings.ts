// What this device can do at most: additions and multiplications in registers, and bytes through memory.
// Every other kernel's result is set against these, measured in the same run.

import { BufferPlan } from "../src/engine/gpu/buffer-plan.js";
import type { Device } from "../src/engine/gpu/device.js";
import { Recorder } from "../src/engine/gpu/recorder.js";
import { fmaFlops, recordCopy, recordFma } from "./ceiling-kernels.js";

export type Ceilings = { gflops: number; gbps: number };

/** The best of several runs of either kernel. */
export async function measureCeilings(device: Device, runs = 5): Promise<Ceilings> {
  const work = device.isSoftware ? { workgroups: 256, steps: 512 } : { workgroups: 16384, steps: 2048 };
  const megabytes = device.isSoftware ? 32 : 120;
  const fma = await timeList(device, runs, (recorder) => {
    recordFma(recorder, { ...work, scale: 0.999, offset: 0.001 });
    return fmaFlops(work);
  });
  const copy = await timeList(device, runs, (recorder) => {
    const x = recorder.scratch("ceiling", megabytes * 256, 1024);
    const again = device.isSoftware ? 2 : 8;
    let last = x;
    for (let i = 0; i < again; i++) last = recordCopy(recorder, last);
    return again * 2 * megabytes * 2 ** 20;
  });
  return { gflops: fma / 1e6, gbps: copy / 1e6 };
}

/** Most work per millisecond of several runs; `record` says how much work it recorded. */
async function timeList(device: Device, runs: number, record: (recorder: Recorder) => number): Promise<number> {
  const plan = new BufferPlan();
  const recorder = new Recorder(device);
  const work = record(recorder);
  const list = recorder.finish("ceiling", plan);
  plan.realize(device);
  try {
    await list.prepare(device);
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i <= runs; i++) {
      const began = performance.now();
      await list.submit();
      await device.idle();
      if (i > 0) best = Math.min(best, performance.now() - began);
    }
    return work / best;
  } finally {
    list.close();
    plan.close(device);
  }
}
