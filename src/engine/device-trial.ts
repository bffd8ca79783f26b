// What no adapter tells of itself, found out once when a device is opened: how fast it is, which decides how work is cut,
// and whether its matrix units compute what they should. Costs tens of milliseconds on a GPU. Adapters that run on the
// CPU are not measured: what they do is known.

import { type Device, type DeviceLimits, type OpenDeviceOptions, openDevice, workLimits } from "./gpu/device.js";
import { attentionProblem } from "./ops/attention.js";
import { copyColumns } from "./ops/columns.js";
import { convolutionProblem } from "./ops/conv2d.js";
import { matmulProblem } from "./ops/matmul.js";
import { attentionMatrixVariants, matrixVariants } from "./ops/matrix-tiles.js";
import type { Problem, Variant } from "./ops/variants.js";
import { candidatesOf, isShortOfMemory, timeBuiltin, tryVariants } from "./variant-trials.js";

/**
 * Opens a device as `openDevice` does, and tries it. Matrix units that compute something wrong, do not compile or take
 * the device with them are not offered; {@link Device.matrixFault} says why.
 * Errors: those of `openDevice`.
 */
export async function openTriedDevice(options: OpenDeviceOptions): Promise<Device> {
  let device = await openDevice(options);
  try {
    const fault = await findMatrixFault(device);
    if (device.failure) {
      device.close();
      device = await openDevice(options);
    }
    if (fault !== undefined) device.refuseMatrices(fault);
    await measureWork(device, options.limits);
    // What was made for the trial is gone, and is no part of what the device is used for.
    device.peakBytes = device.allocatedBytes;
    return device;
  } catch (error) {
    device.close();
    throw error;
  }
}

/** What is wrong with the matrix units, if kernels would use them. Where the device is lost to them, it is that. */
export async function findMatrixFault(
  device: Device,
  problems: readonly Problem[] = matrixProblems(device),
): Promise<string | undefined> {
  if (device.matrixConfigs.length === 0 || !Number.isFinite(device.limits.matrixRows)) return undefined;
  const trial = { deadline: Number.POSITIVE_INFINITY, isUntimed: true };
  for (const problem of problems) {
    try {
      const candidates = candidatesOf(device, problem);
      await tryVariants(device, problem, candidates, trial);
      const wrong = candidates.find(({ error }) => error !== undefined);
      if (wrong) return `${wrong.variant}: ${wrong.error}`;
    } catch (error) {
      if (device.failure) return device.failure.message;
      // What could not be tried counts as right.
      if (!isShortOfMemory(device, error)) throw error;
    }
  }
  return undefined;
}

/**
 * The operations with kernels for matrix units, each of which loads them in a way of its own; sizes leave partial tiles.
 * Of an operation's kernels that use the same matrices the first stands for all: tuning checks the others.
 */
function matrixProblems(device: Device): Problem[] {
  const product = { rows: 200, k: 168, cols: 136, a: "f32", weight: "bf16", isNarrow: true, isGated: false } as const;
  const convolution = { pixels: 225, inputs: 24, outputs: 72, weight: "bf16", isNarrow: true } as const;
  const heads = { tokens: 150, heads: 2, headSize: 128, dtype: "f16" } as const;
  const onMatrixUnits = (problem: Problem, variants: readonly Variant[]): Problem => {
    const portable = problem.variants(device).find(({ stem }) => stem === problem.portable) as Variant;
    const shape = ({ tunables }: Variant) => `${tunables.MATRIX_M}×${tunables.MATRIX_N}×${tunables.MATRIX_K}`;
    const first = new Map([...variants].reverse().map((variant) => [shape(variant), variant]));
    return { ...problem, variants: () => [portable, ...first.values()] };
  };
  return [
    onMatrixUnits(matmulProblem(product), matrixVariants(device, "matmul")),
    onMatrixUnits(convolutionProblem(convolution), matrixVariants(device, "conv2d")),
    onMatrixUnits(attentionProblem(heads), attentionMatrixVariants(device, heads.headSize / 8)),
  ];
}

/** A shorter time says more of the clock than of the device: pages get a coarse one. */
const leastTime_ms = 0.1;
/** How many times as slow as what is timed other kernels may be, so that they still keep within the limits. */
const margin = 4;

/** Limits for the device's own speed, unless it cannot be measured or the caller has set one of them. */
async function measureWork(device: Device, given: Partial<DeviceLimits> = {}): Promise<void> {
  const isGiven = given.dispatchFlops ?? given.dispatchBytes ?? given.submissionFlops ?? given.submissionBytes;
  if (device.isSoftware || isGiven !== undefined) return;
  try {
    const product_ms = await timeBuiltin(device, sampleProduct);
    const copy_ms = await timeBuiltin(device, sampleCopy);
    if (product_ms === undefined || copy_ms === undefined) return;
    const rates = {
      flopsPerSecond: plannedRate(sampleProduct.flops, product_ms),
      bytesPerSecond: plannedRate(copiedBytes, copy_ms),
    };
    Object.assign(device.limits, workLimits(rates));
  } catch (error) {
    if (!isShortOfMemory(device, error)) throw error;
  }
}

/** Work a second to plan with: a power of two, so that work is cut alike every time although times differ. */
export function plannedRate(work: number, ms: number): number {
  const measured = work / (Math.max(ms, leastTime_ms) / 1000);
  return 2 ** Math.floor(Math.log2(measured / margin));
}

const product = matmulProblem({
  ...{ rows: 1024, k: 1024, cols: 1024, a: "f32", weight: "bf16", isNarrow: false, isGated: false },
});
/** By the portable kernel: where others compute the same they are faster. */
const sampleProduct: Problem = {
  ...product,
  variants: (device) => product.variants(device).filter(({ stem }) => stem === product.portable),
};

const copied = { rows: 8192, cols: 1024 };
const copiedBytes = 8 * copied.rows * copied.cols;

const sampleCopy: Problem = {
  name: "copy",
  flops: copied.rows * copied.cols,
  extents: copied,
  operands: "f32",
  portable: "copy_columns",
  variants: () => [{ stem: "copy_columns", tunables: {}, tileRows: 1, tileCols: copied.cols }],
  sample: (recorder, _inputs, { rows, cols }) => {
    const x = recorder.scratch("x", rows, cols);
    const y = recorder.scratch("y", rows, cols);
    copyColumns(recorder, x, y, 0);
    return y;
  },
};
