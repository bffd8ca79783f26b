// What a device is found to be when it is opened: how work is cut follows from its speed, and matrix units that are wrong
// are not used. Processors stand in for GPUs by another name; what matrix units do is tried where a device has some.

import { expect, it } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import { findMatrixFault, openTriedDevice, plannedRate } from "../../src/engine/device-trial.js";
import { type Device, openDevice } from "../../src/engine/gpu/device.js";
import { choosePlan } from "../../src/engine/memory-plan.js";
import { matmulProblem } from "../../src/engine/ops/matmul.js";
import type { Problem, Variant } from "../../src/engine/ops/variants.js";
import { sameBytes } from "../weights/fixtures.js";
import { tinySource } from "./checkpoints.js";
import { draw, openTiny, testGpu } from "./open.js";
import { type SpyOptions, spyOn, wrap } from "./spied-gpu.js";

/** The adapter of the test process as a GPU of another name. */
async function asGpu(options: SpyOptions = {}) {
  const info = { vendor: "acme", architecture: "", device: "", description: "ACME GPU" };
  return spyOn(await testGpu(), { ...options, adapter: { info } });
}

async function closing<T>(opening: Promise<Device>, look: (device: Device) => T | Promise<T>): Promise<T> {
  const device = await opening;
  try {
    return await look(device);
  } finally {
    device.close();
  }
}

it("work is planned by a quarter of the speed measured or less, alike for times that differ a little", () => {
  expect(plannedRate(1e12, 100)).toBe(2 ** 41); // of 1e13 / 4
  expect(plannedRate(1e12, 90)).toBe(2 ** 41);
  for (const ms of [0.3, 7, 5000]) {
    const rate = plannedRate(1e9, ms);
    expect(rate).toBeLessThanOrEqual(1e12 / ms / 4);
    expect(rate).toBeGreaterThan(1e12 / ms / 8);
  }
  // A clock that stood still.
  expect(plannedRate(1e9, 0)).toBe(plannedRate(1e9, 0.1));
});

it("a GPU's work is cut by its speed, and nothing of the measurement is left", async () => {
  const assumed = await closing(openDevice({ gpu: (await asGpu()).gpu }), ({ limits }) => limits);
  const spy = await asGpu();
  const device = await openTriedDevice({ gpu: spy.gpu });
  const { dispatchFlops, dispatchBytes, submissionFlops, submissionBytes, ...others } = device.limits;
  expect(assumed).toMatchObject(others);
  for (const limit of [dispatchFlops, dispatchBytes]) expect(Math.log2(10 * limit) % 1).toBeCloseTo(0, 9);
  expect([submissionFlops, submissionBytes]).toEqual([5 * dispatchFlops, 5 * dispatchBytes]);
  // No processor comes near what a small GPU is assumed to do.
  if ((await closing(openDevice({ gpu: await testGpu() }), (own) => own)).isSoftware) {
    expect(dispatchFlops).toBeLessThan(assumed.dispatchFlops / 2);
  }
  expect([device.allocatedBytes, device.peakBytes, spy.devices[0]!.liveBytes()]).toEqual([0, 0, 0]);
  device.close();
});

it.each([
  { dispatchFlops: 12345 },
  { dispatchBytes: 12345 },
  { submissionFlops: 12345 },
  { submissionBytes: 12345 },
  { bindingBytes: 2 ** 20, matrixRows: 7 },
])("limits that the caller gives stay: %j", async (limits) => {
  const opening = openTriedDevice({ gpu: (await asGpu()).gpu, limits });
  await closing(opening, (device) => expect(device.limits).toMatchObject(limits));
});

/** Has a device report, as Dawn does, that it had no memory whenever a buffer of that label was made. */
function withoutMemoryFor(gpu: GPUDevice, label: string): void {
  let isFull = false;
  wrap(gpu, "createBuffer", (call, [descriptor]) => {
    if ((descriptor as GPUBufferDescriptor).label === label) isFull = true;
    return call();
  });
  // The innermost scope is the one for memory.
  wrap(gpu, "popErrorScope", async (call) => {
    const isTold = isFull;
    isFull = false;
    const error = await (call() as Promise<GPUError | null>);
    return isTold ? { message: "no memory" } : error;
  });
}

it.each<[string, { onDevice?: SpyOptions["onDevice"]; bufferBytes?: number }]>([
  ["memory", { onDevice: ({ device }) => withoutMemoryFor(device, "a") }],
  ["memory for its second part", { onDevice: ({ device }) => withoutMemoryFor(device, "x") }],
  ["buffers", { bufferBytes: 16 * 1024 * 1024 }],
])(
  "a device without %s for the measurement is taken as a small GPU, and lives",
  async (_, { onDevice, bufferBytes }) => {
    const spy = await asGpu({ onDevice });
    const limits = bufferBytes === undefined ? {} : { bufferBytes };
    const assumed = await closing(openDevice({ gpu: (await asGpu()).gpu, limits }), (device) => device.limits);
    await closing(openTriedDevice({ gpu: spy.gpu, limits }), (device) => {
      expect(device.failure).toBeUndefined();
      expect(device.limits).toEqual(assumed);
      expect([device.allocatedBytes, device.peakBytes, spy.devices[0]!.liveBytes()]).toEqual([0, 0, 0]);
    });
  },
);

it("processors are not tried: what they do is known", async () => {
  const spy = spyOn(await testGpu());
  const { isSoftware, limits } = await closing(openDevice({ gpu: await testGpu() }), (device) => device);
  await closing(openTriedDevice({ gpu: spy.gpu }), (device) => {
    if (!isSoftware) return expect(spy.devices[0]!.counts.pipelines).toBeGreaterThan(1);
    expect(device.limits).toEqual(limits);
    return expect(spy.devices[0]!.counts).toMatchObject({ pipelines: 1, submissions: 1 });
  });
});

it("what is planned for a device is what an engine takes on it", async () => {
  const { gpu } = await asGpu();
  const shape = { width: 64, height: 64, references: [], isGuided: false };
  const opened = await openCheckpoint(tinySource());
  const { plan, limits } = await closing(openTriedDevice({ gpu }), async (device) => {
    return { plan: await choosePlan(opened, shape, undefined, { device }), limits: device.limits };
  });
  const engine = await openTiny({ gpu, limits });
  const picture = await draw(engine, shape);
  expect(engine.info.peakDeviceBytes).toBe(plan.totalBytes);
  const other = await draw(await openTiny({ gpu, limits: { dispatchFlops: 1e9, submissionFlops: 2e9 } }), shape);
  expect(sameBytes(picture.data, other.data), "however it is cut, the picture is the same").toBe(true);
});

/** A device that is told to have matrix units, whether it has or not. */
async function claimingMatrices<T>(look: (device: Device) => T | Promise<T>): Promise<T> {
  const opening = openDevice({ gpu: await testGpu(), limits: { matrixRows: 1 } });
  return closing(opening, (device) => {
    device.matrixConfigs = [{ M: 8, N: 8, K: 8, componentType: "f16", resultComponentType: "f32" }];
    return look(device);
  });
}

const product = matmulProblem({
  ...{ rows: 64, k: 40, cols: 24, a: "f32", weight: "bf16", isNarrow: true, isGated: false },
});
const portable: Variant = { stem: "matmul", tunables: {}, tileRows: 64, tileCols: 64 };
const withVariant = (variant: Variant): Problem => ({ ...product, variants: () => [portable, variant] });

it.each<[string, Problem, RegExp]>([
  [
    "computes something else",
    withVariant({ ...portable, tunables: { WEIGHT_TYPE: 2 } }),
    /^matmul WEIGHT_TYPE=2: its result is off by /,
  ],
  ["does not compile", withVariant({ ...portable, stem: "bench_copy" }), /^bench_copy: /],
  [
    "takes the device with it",
    { ...product, sample: (recorder) => void recorder.device.gpu.destroy() as never },
    /the GPU device was lost/,
  ],
])("a kernel for matrix units that %s is a fault of theirs", async (_, problem, message) => {
  await claimingMatrices(async (device) => expect(await findMatrixFault(device, [problem])).toMatch(message));
});

it("matrix units that a device has no memory to try count as right", async () => {
  await claimingMatrices(async (device) => {
    withoutMemoryFor(device.gpu, "a");
    expect(await findMatrixFault(device, [product, product])).toBeUndefined();
    expect(device.failure).toBeUndefined();
  });
});

it("matrix units that are not there are a fault, too, unless nothing would use them", async () => {
  const gpu = await testGpu();
  const hasUnits = await closing(openDevice({ gpu }), ({ matrixConfigs }) => matrixConfigs.length > 0);
  await claimingMatrices(async (device) => {
    const fault = await findMatrixFault(device);
    if (!hasUnits) expect(fault).toMatch(/^matmul_subgroup_matrix .*subgroup/);
    device.limits.matrixRows = Number.POSITIVE_INFINITY;
    expect(await findMatrixFault(device)).toBeUndefined();
  });
});

it.each(["matmul", "conv2d", "attention"])("matrix units that %s loads wrongly are not used", async (operation) => {
  const stem = `${operation}_subgroup_matrix`;
  let isTried = false;
  const spy = spyOn(await testGpu(), {
    onDevice: ({ device }) =>
      wrap(device, "createShaderModule", (call, [descriptor]) => {
        const module = descriptor as GPUShaderModuleDescriptor;
        if (module.label !== stem) return call();
        isTried = true;
        // As a driver that takes rows for columns.
        const other = { row: "col", col: "row" } as Record<string, string>;
        module.code = module.code.replace(/(subgroupMatrixLoad<.*)(row|col)_major/g, (_, load, major) => {
          return `${load}${other[major]}_major`;
        });
        return call();
      }),
  });
  const limits = { matrixRows: 1 };
  const gpu = await testGpu();
  const offered = await closing(openTriedDevice({ gpu, limits }), ({ matrixConfigs, matrixFault }) => {
    expect(matrixFault).toBeUndefined();
    return matrixConfigs;
  });
  await closing(openTriedDevice({ gpu: spy.gpu, limits }), (device) => {
    expect(isTried).toBe(offered.length > 0);
    expect(device.matrixConfigs).toEqual([]);
    if (isTried) expect(device.matrixFault).toMatch(new RegExp(`^${stem} .*: its result is off by`));
  });
});

it.each(["f32", "f16"] as const)("an engine in %s tries matrix units only if it may use them", async (precision) => {
  const tried = new Set<string>();
  const spy = spyOn(await testGpu(), {
    onDevice: ({ device }) =>
      wrap(device, "createShaderModule", (call, [descriptor]) => {
        tried.add((descriptor as GPUShaderModuleDescriptor).label ?? "");
        return call();
      }),
  });
  const limits = { matrixRows: 1 };
  const hasUnits = await closing(openDevice({ gpu: await testGpu() }), ({ matrixConfigs }) => matrixConfigs.length > 0);
  await openTiny({ gpu: spy.gpu, precision, limits });
  const isTried = [...tried].some((label) => label.endsWith("_subgroup_matrix"));
  expect(isTried).toBe(hasUnits && precision === "f16");
});
