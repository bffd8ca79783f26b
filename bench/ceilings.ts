// What this device can do at most: additions and multiplications in registers, and bytes through memory.
// Every other kernel's result is set against these, measured in the same run.

import { BufferPlan } from "../src/engine/gpu/buffer-plan.js";
import { bindRows } from "../src/engine/gpu/commands.js";
import type { Device } from "../src/engine/gpu/device.js";
import { kernel } from "../src/engine/gpu/kernel.js";
import { Recorder } from "../src/engine/gpu/recorder.js";
import type { Tensor } from "../src/engine/gpu/tensor.js";
import { foldWorkgroups } from "../src/engine/ops/cut.js";

export type Ceilings = { gflops: number; gbps: number };

/** Lanes of a workgroup of both kernels, and how often one step of bench_fma applies the formula. */
const lanes = 64;
const unrolled = 8;

/** Records bench_fma: `workgroups`·64 invocations, each `steps`·8 times 12 multiplications and additions; y holds 4 each. */
export function recordFma(
  recorder: Recorder,
  { workgroups, steps, scale, offset }: { workgroups: number; steps: number; scale: number; offset: number },
): Tensor {
  const y = recorder.scratch("fma", (workgroups * lanes) / 2, 8);
  const output = bindRows(y);
  recorder.dispatch({
    kernel: kernel("bench_fma"),
    label: "bench_fma",
    bindings: { y: output.binding },
    params: { steps, scale, offset },
    workgroups: [workgroups, 1, 1],
    flops: workgroups * lanes * steps * unrolled * 24,
    bytes: workgroups * lanes * 16,
  });
  return y;
}

/** Records bench_copy of a whole tensor. */
export function recordCopy(recorder: Recorder, x: Tensor): Tensor {
  const y = recorder.scratch("copy", x.rows, x.cols);
  const vectors = (x.rows * x.pitch) / 4;
  recorder.dispatch({
    kernel: kernel("bench_copy"),
    label: "bench_copy",
    bindings: { x: bindRows(x).binding, y: bindRows(y).binding },
    params: { vectors },
    workgroups: foldWorkgroups(vectors / lanes),
    flops: 0,
    bytes: 32 * vectors,
  });
  return y;
}

/** The best of several runs of either kernel. */
export async function measureCeilings(device: Device, runs = 5): Promise<Ceilings> {
  const work = device.isSoftware ? { workgroups: 256, steps: 512 } : { workgroups: 16384, steps: 2048 };
  const megabytes = device.isSoftware ? 32 : 120;
  const fma = await timeList(device, runs, (recorder) => {
    recordFma(recorder, { ...work, scale: 0.999, offset: 0.001 });
    return work.workgroups * lanes * work.steps * unrolled * 24;
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
