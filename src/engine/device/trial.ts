// What no adapter tells of itself, found out once when a device is opened: how fast it is, which decides how work is cut,
// and whether its matrix units compute what they should. Adapters that run on the CPU are not measured: what they do is
// known.

import { throwIfAborted } from "../../errors.js";
import { type Device, type OpenDeviceOptions, openDevice } from "../gpu/device.js";
import { type DeviceLimits, type MatrixConfig, usesMatrices, workLimits } from "../gpu/facts.js";
import { attentionWorkload } from "../ops/attention.js";
import { copyColumns } from "../ops/columns.js";
import { convolutionWorkload } from "../ops/conv2d.js";
import { matmulWorkload } from "../ops/matmul.js";
import { attentionMatrixVariants, matrixVariants } from "../ops/matrix-tiles.js";
import type { Variant, Workload } from "../ops/variants.js";
import {
  candidatesOf,
  closeAfter,
  endsBy,
  isShortOfMemory,
  type TrialOptions,
  timeBuiltin,
  tryVariants,
} from "../tuning/trials.js";

/** The trial of matrix units takes no longer: what compiles for so long is given up. Only tests have it on processors. */
const matrixTrial_ms = { gpu: 8000, processor: 120_000 } as const;

export type OpenTriedDeviceOptions = OpenDeviceOptions & { signal?: AbortSignal };

/**
 * Opens a device as `openDevice` does, and tries it. Matrices that kernels compute something wrong with, or do not compile
 * with, are not offered, and none where the device is lost to them or the trial does not end; {@link Device.matrixFault}
 * says why.
 * Errors: those of `openDevice`, `request.cancelled`.
 */
export async function openTriedDevice(options: OpenTriedDeviceOptions): Promise<Device> {
  const device = await openWithMatrices(options);
  try {
    throwIfAborted(options.signal, opening);
    await measureWork(device, options.limits);
    // What was made for the trial is gone, and is no part of what the device is used for.
    device.peakBytes = device.allocatedBytes;
    return device;
  } catch (error) {
    device.close();
    throw error;
  }
}

const opening = "opening the device";

/** A device with the matrices that were found to be right: another one if the first is lost to them or stuck with them. */
async function openWithMatrices(options: OpenTriedDeviceOptions): Promise<Device> {
  const first = await openDevice(options);
  const most_ms = matrixTrial_ms[first.isSoftware ? "processor" : "gpu"];
  const trial = tryMatrices(first, matrixWorkloads(first), { most_ms, signal: options.signal });
  const { right, fault, rest } = await trial.catch((error) => {
    first.close();
    throw error;
  });
  let device = first;
  if (rest) {
    closeAfter(rest, first);
    throwIfAborted(options.signal, opening);
    device = await openDevice(options);
  }
  device.restrictMatrices(right, fault);
  return device;
}

export type MatrixFindings = {
  /** Those that kernels may use. */
  right: readonly MatrixConfig[];
  /** What is wrong with the others, and in which kernel. */
  fault?: string;
  /** Of the trial, if it did not end well: the device is of no use any more, and can be closed when this has settled. */
  rest?: Promise<unknown>;
};

/**
 * Tries the kernels for matrix units, if any would be used. One that fails speaks against the matrices that it uses; where
 * the device is lost, the time is up or `signal` is aborted none are right. The portable kernel is each workload's first.
 */
export async function tryMatrices(
  device: Device,
  workloads: readonly Workload[],
  { most_ms = Number.POSITIVE_INFINITY, signal }: { most_ms?: number; signal?: AbortSignal } = {},
): Promise<MatrixFindings> {
  if (!usesMatrices(device)) return { right: device.matrixConfigs };
  const stop = new AbortController();
  let latest = "";
  const onVariant = (variant: string) => {
    latest = variant;
  };
  const options = { deadline: Number.POSITIVE_INFINITY, signal: stop.signal, onVariant };
  const trial = findWrong(device, workloads, options);
  let why = `it had not run after ${most_ms / 1000} s`;
  try {
    if (await endsBy(performance.now() + most_ms, trial, signal)) {
      const wrong = await trial;
      device.check();
      const shapes = new Set(wrong.map(({ shape }) => shape));
      const right = device.matrixConfigs.filter(({ M, N, K }) => !shapes.has(`${M}×${N}×${K}`));
      return { right, fault: wrong.map(({ fault }) => fault).join("; ") || undefined };
    }
    stop.abort();
  } catch (error) {
    if (!device.failure) throw error;
    why = device.failure.message;
  }
  return { right: [], fault: `${latest}: ${why}`, rest: trial };
}

/** A kernel that failed, and its matrices. */
type Wrong = { shape: string; fault: string };

async function findWrong(device: Device, workloads: readonly Workload[], options: TrialOptions): Promise<Wrong[]> {
  const wrong: Wrong[] = [];
  for (const workload of workloads) {
    const candidates = candidatesOf(device, workload);
    try {
      await tryVariants(device, workload, candidates, { ...options, isUntimed: true });
    } catch (error) {
      // What cannot be tried counts as right.
      if (!isShortOfMemory(device, error)) throw error;
    }
    // Without the portable kernel nothing is known of the others.
    if (candidates[0]?.error !== undefined) continue;
    for (const [i, { variant, error }] of candidates.entries()) {
      const shape = matrixShape(workload.variants(device)[i] as Variant);
      if (error !== undefined) wrong.push({ shape, fault: `${variant}: ${error}` });
    }
  }
  return wrong;
}

function matrixShape({ tunables }: Variant): string {
  return `${tunables.MATRIX_M}×${tunables.MATRIX_N}×${tunables.MATRIX_K}`;
}

/**
 * The operations with kernels for matrix units, each of which loads them in a way of its own; sizes leave partial tiles.
 * Of an operation's kernels that use the same matrices the first stands for all: tuning checks the others.
 */
function matrixWorkloads(device: Device): Workload[] {
  const product = { rows: 200, k: 168, cols: 136, a: "f32", weight: "bf16", operands: "f16", isGated: false } as const;
  const convolution = { pixels: 225, inputs: 24, outputs: 72, weight: "bf16", operands: "f16" } as const;
  const heads = { tokens: 150, heads: 2, headSize: 128, operands: "f16" } as const;
  const onMatrixUnits = (workload: Workload, variants: readonly Variant[]): Workload => {
    const portable = workload.variants(device).find(({ stem }) => stem === workload.portable) as Variant;
    const first = new Map([...variants].reverse().map((variant) => [matrixShape(variant), variant]));
    return { ...workload, variants: () => [portable, ...first.values()] };
  };
  return [
    onMatrixUnits(matmulWorkload(product), matrixVariants(device, "matmul")),
    onMatrixUnits(convolutionWorkload(convolution), matrixVariants(device, "conv2d")),
    onMatrixUnits(attentionWorkload(heads), attentionMatrixVariants(device, heads.headSize / 8)),
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
      flopsPerSecond: steadyRate(sampleProduct.flops, product_ms),
      bytesPerSecond: steadyRate(copiedBytes, copy_ms),
    };
    Object.assign(device.limits, workLimits(rates));
    device.isMeasured = true;
  } catch (error) {
    if (!isShortOfMemory(device, error)) throw error;
  }
}

/** Work a second to cut by: a power of two, so that work is cut alike every time although times differ. */
export function steadyRate(work: number, ms: number): number {
  const measured = work / (Math.max(ms, leastTime_ms) / 1000);
  return 2 ** Math.floor(Math.log2(measured / margin));
}

const product = matmulWorkload({
  ...{ rows: 1024, k: 1024, cols: 1024, a: "f32", weight: "bf16", operands: "f32", isGated: false },
});
/** By the portable kernel: where others compute the same they are faster. */
const sampleProduct: Workload = {
  ...product,
  variants: (facts) => product.variants(facts).filter(({ stem }) => stem === product.portable),
};

const copied = { rows: 8192, cols: 1024 };
const copiedBytes = 8 * copied.rows * copied.cols;

const sampleCopy: Workload = {
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
