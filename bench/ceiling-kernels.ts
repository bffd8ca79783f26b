// The two kernels that measure a device's ceilings, and the work that they do. Knows no clock.

import { bindRows } from "../src/engine/gpu/commands.js";
import { kernel } from "../src/engine/gpu/kernel.js";
import type { Recorder } from "../src/engine/gpu/recorder.js";
import type { Tensor } from "../src/engine/gpu/tensor.js";
import { foldWorkgroups } from "../src/engine/ops/cut.js";

/** Lanes of a workgroup of both kernels, and how often one step of bench_fma applies the formula. */
const lanes = 64;
const unrolled = 8;

type FmaWork = { workgroups: number; steps: number };

export function fmaFlops({ workgroups, steps }: FmaWork): number {
  return workgroups * lanes * steps * unrolled * 24;
}

/** Records bench_fma: `workgroups`·64 invocations, each `steps`·8 times 12 multiplications and additions; y holds 4 each. */
export function recordFma(
  recorder: Recorder,
  { workgroups, steps, scale, offset }: FmaWork & { scale: number; offset: number },
): Tensor {
  const y = recorder.scratch("fma", (workgroups * lanes) / 2, 8);
  const output = bindRows(y);
  recorder.dispatch({
    kernel: kernel("bench_fma"),
    label: "bench_fma",
    bindings: { y: output.binding },
    params: { steps, scale, offset },
    workgroups: [workgroups, 1, 1],
    flops: fmaFlops({ workgroups, steps }),
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
