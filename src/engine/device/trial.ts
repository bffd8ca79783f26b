// What no adapter tells of itself, found out once when a device is opened: how fast it is, which decides how work is
// cut, and whether its matrix units compute what they should. Adapters that run on the CPU are not measured: what they
// do is known.

import { throwIfAborted } from "../../errors.js";
import { type Device, type OpenDeviceOptions, openDevice } from "../gpu/device.js";
import { type DeviceLimits, steadyRate, workLimits } from "../gpu/facts.js";
import { copyColumns } from "../ops/columns.js";
import { matmulWorkload } from "../ops/matmul.js";
import type { Workload } from "../ops/variants.js";
import { closeAfter, isShortOfMemory, timeBuiltin } from "../tuning/trials.js";
import { matrixWorkloads, tryMatrices } from "./matrices.js";

/** The trial of matrix units is given up after this time. Only tests have it on processors. */
const matrixTrial_ms = { gpu: 8000, processor: 120_000 } as const;

export type OpenTriedDeviceOptions = OpenDeviceOptions & { signal?: AbortSignal };

/**
 * Opens a device as `openDevice` does, and tries it. Matrices are not offered if kernels give wrong results with them
 * or do not compile; none are if the device is lost in their trial, or the trial does not end. `matrixFault` says why.
 * Errors: those of `openDevice`, `request.cancelled`.
 */
export async function openTriedDevice(options: OpenTriedDeviceOptions): Promise<Device> {
  const device = await openWithMatrices(options);
  try {
    throwIfAborted(options.signal, opening);
    await measureWork(device, options.limits);
    // The trial's buffers are gone, and do not count as what the device is used for.
    device.peakBytes = device.allocatedBytes;
    return device;
  } catch (error) {
    device.close();
    throw error;
  }
}

const opening = "opening the device";

/**
 * A device with the matrices that were found to be right: another one if the first was lost or got stuck in their
 * trial.
 */
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

const product = matmulWorkload({
  ...{ rows: 1024, k: 1024, cols: 1024, a: "f32", weight: "bf16", operands: "f32", isGated: false },
});
/** By the portable kernel, because where others are chosen they are faster. */
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
