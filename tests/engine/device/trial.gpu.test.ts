// What a device is found to be when it is opened: how work is cut follows from its speed, and matrix units that are wrong
// are not used. Processors stand in for GPUs by another name; what matrix units do is tried where a device has some.

import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../../src/engine/checkpoint.js";
import { tryMatrices } from "../../../src/engine/device/matrices.js";
import { openTriedDevice } from "../../../src/engine/device/trial.js";
import { type Device, openDevice } from "../../../src/engine/gpu/device.js";
import { type MatrixConfig, steadyRate } from "../../../src/engine/gpu/facts.js";
import { choosePlan } from "../../../src/engine/memory.js";
import { matmulWorkload } from "../../../src/engine/ops/matmul.js";
import { matrixVariants } from "../../../src/engine/ops/matrix-tiles.js";
import type { Variant, Workload } from "../../../src/engine/ops/variants.js";
import { tinySource } from "../checkpoints.js";
import { draw, openTiny, testGpu } from "../open.js";
import { type SpyOptions, spyOn, wrap } from "../spied-gpu.js";
import { failure, sameBytes } from "../weights/fixtures.js";

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

it("work is cut by a quarter of the speed measured or less, alike for times that differ a little", () => {
  expect(steadyRate(1e12, 100)).toBe(2 ** 41); // of 1e13 / 4
  expect(steadyRate(1e12, 90)).toBe(2 ** 41);
  for (const ms of [0.3, 7, 5000]) {
    const rate = steadyRate(1e9, ms);
    expect(rate).toBeLessThanOrEqual(1e12 / ms / 4);
    expect(rate).toBeGreaterThan(1e12 / ms / 8);
  }
  // A clock that stood still.
  expect(steadyRate(1e9, 0)).toBe(steadyRate(1e9, 0.1));
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
  const size = { width: 64, height: 64 };
  const shape = { ...size, references: [], isGuided: false };
  const opened = await openCheckpoint(tinySource());
  const { plan, limits } = await closing(openTriedDevice({ gpu }), async (device) => {
    return { plan: await choosePlan(opened, shape, undefined, { facts: device }), limits: device.limits };
  });
  const engine = await openTiny({ gpu, limits });
  const picture = await draw(engine, size);
  expect(engine.info.peakDeviceBytes).toBe(plan.totalBytes);
  const other = await draw(await openTiny({ gpu, limits: { dispatchFlops: 1e9, submissionFlops: 2e9 } }), size);
  expect(sameBytes(picture.data, other.data), "however it is cut, the picture is the same").toBe(true);
});

const [small, large] = [
  [8, 8, 8],
  [16, 16, 16],
].map(([M, N, K]) => {
  return { M, N, K, componentType: "f16", resultComponentType: "f32" } as MatrixConfig;
}) as [MatrixConfig, MatrixConfig];

/** A device that is told to have matrix units, whether it has or not. */
async function claimingMatrices<T>(look: (device: Device) => T | Promise<T>): Promise<T> {
  const opening = openDevice({ gpu: await testGpu(), limits: { matrixRows: 1 } });
  return closing(opening, (device) => {
    device.matrixConfigs = [small, large];
    return look(device);
  });
}

const product = matmulWorkload({
  ...{ rows: 64, k: 40, cols: 24, a: "f32", weight: "bf16", operands: "f16", isGated: false },
});
const portable: Variant = { stem: "matmul", tunables: {}, tileRows: 64, tileCols: 64 };

/** A product by the portable kernel, and by two that stand for those of small and of large matrices. */
function among(ofSmall: Variant, ofLarge: Variant, first = portable): Workload {
  const kernels = new Map<Variant, Variant>();
  const claimed = [ofSmall, ofLarge].map((kernel, i) => {
    const { M, N, K } = [small, large][i]!;
    const variant = { ...kernel, stem: `on_${M}`, tunables: { MATRIX_M: M, MATRIX_N: N, MATRIX_K: K } };
    kernels.set(variant, kernel);
    return variant;
  });
  return {
    ...product,
    variants: () => [first, ...claimed],
    sample: (recorder, inputs, part, variant) =>
      product.sample(recorder, inputs, part, kernels.get(variant) ?? variant),
  };
}

it.each<[string, Variant, RegExp]>([
  [
    "computes something else",
    { ...portable, tunables: { WEIGHT_TYPE: 2 } },
    /^on_8 MATRIX_K=8 .*: its result is off by [^;]*$/,
  ],
  ["does not compile", { ...portable, stem: "bench_copy" }, /^on_8 .*: .*bench_copy[^;]*$/],
])("a kernel for matrix units that %s is a fault of its matrices and of no others", async (_, wrong, message) => {
  await claimingMatrices(async (device) => {
    const { right, fault, rest } = await tryMatrices(device, [among(wrong, portable)]);
    expect([right, rest]).toEqual([[large], undefined]);
    expect(fault).toMatch(message);
    const both = await tryMatrices(device, [among(wrong, portable), among(portable, wrong)]);
    expect(both.right).toEqual([]);
    expect(both.fault).toMatch(/^on_8 .*; on_16 /);
  });
});

it("matrix units that take the device with them are not used, and it is told which kernel it was", async () => {
  await claimingMatrices(async (device) => {
    const workload = among(portable, portable);
    const sample: Workload["sample"] = (recorder, inputs, part, variant) => {
      if (variant.stem === "on_16") device.gpu.destroy();
      return workload.sample(recorder, inputs, part, variant);
    };
    const { right, fault } = await tryMatrices(device, [{ ...workload, sample }]);
    expect(right).toEqual([]);
    expect(fault).toMatch(/^on_16 .*: the GPU device was lost/);
  });
});

it("a portable kernel that fails is no fault of matrix units", async () => {
  await claimingMatrices(async (device) => {
    const missing: Variant = { ...portable, tunables: { MAGIC: 1 } };
    expect(await tryMatrices(device, [among(portable, portable, missing)])).toEqual({ right: [small, large] });
  });
});

it("matrix units that a device has no memory to try count as right", async () => {
  await claimingMatrices(async (device) => {
    withoutMemoryFor(device.gpu, "a");
    expect(await tryMatrices(device, [among(portable, portable)])).toEqual({ right: [small, large] });
    expect(device.failure).toBeUndefined();
  });
});

describe("a trial of matrix units that does not end", () => {
  /** Holds up what is compiled on a device, from the `first` kernel on, until `end` is called. */
  function stuck(gpu: GPUDevice, first: string) {
    const steps = { end: () => {}, compiling: () => {} };
    const ended = new Promise<void>((resolve) => {
      steps.end = resolve;
    });
    const compiling = new Promise<void>((resolve) => {
      steps.compiling = resolve;
    });
    wrap(gpu, "createComputePipelineAsync", async (call, [descriptor]) => {
      if ((descriptor as GPUComputePipelineDescriptor).label !== first) return call();
      steps.compiling();
      await ended;
      return call();
    });
    return { compiling, end: steps.end };
  }
  const endless = among({ ...portable, stem: "matmul_f16" }, portable);

  it("is given up when the time is over, or when it is told so, and none are used", async () => {
    await claimingMatrices(async (device) => {
      if (!device.features.has("shader-f16")) return;
      const { compiling, end } = stuck(device.gpu, "matmul_f16");
      const late = await tryMatrices(device, [endless], { most_ms: 500 });
      expect(late).toMatchObject({ right: [], fault: expect.stringMatching(/^on_8 .*: it had not run after 0.5 s$/) });
      const stop = new AbortController();
      const stopped = tryMatrices(device, [endless], { signal: stop.signal });
      await compiling;
      stop.abort();
      const { rest } = await stopped;
      end();
      await Promise.allSettled([late.rest, rest]);
      expect(device.failure).toBeUndefined();
    });
  });

  /** A GPU that claims matrix units, on the first of whose devices the first of their trials does not end. */
  async function stuckGpu() {
    const trial = { compiling: Promise.resolve(), end: () => {}, isClosed: false };
    let opens = () => {};
    const opened = new Promise<void>((resolve) => {
      opens = resolve;
    });
    let closes = () => {};
    const closed = new Promise<void>((resolve) => {
      closes = resolve;
    });
    const subgroupMatrixConfigs = [small];
    const info = { vendor: "acme", architecture: "", device: "", description: "ACME GPU", subgroupMatrixConfigs };
    const { gpu, devices } = spyOn(await testGpu(), {
      adapter: { info },
      onDevice: ({ device }) => {
        const features = new Set([...device.features, "chromium-experimental-subgroup-matrix"]);
        Object.defineProperty(device, "features", { value: features });
        if (devices.length > 1) return;
        Object.assign(trial, stuck(device, "matmul"));
        opens();
        wrap(device, "destroy", (call) => {
          trial.isClosed = true;
          closes();
          return call();
        });
      },
    });
    return { gpu, devices, trial, opened, closed };
  }

  it("is followed by another device, and the one before is closed when it ends", async () => {
    const { gpu, devices, trial, closed } = await stuckGpu();
    await closing(openTriedDevice({ gpu }), (device) => {
      expect(device.gpu).toBe(devices[1]!.device);
      expect(device.matrixConfigs).toEqual([]);
      expect(device.matrixFault).toMatch(/^matmul.*: it had not run after \d+ s$/);
      expect([device.isMeasured, trial.isClosed]).toEqual([true, false]);
    });
    trial.end();
    await closed;
  });

  it("ends when an engine's opening is cancelled", async () => {
    const { gpu, devices, trial, opened, closed } = await stuckGpu();
    const stop = new AbortController();
    const opening = failure(openTiny({ gpu, precision: "f16", signal: stop.signal }), "request.cancelled");
    await opened;
    await trial.compiling;
    stop.abort("no");
    expect((await opening).cause).toBe("no");
    expect([devices.length, trial.isClosed]).toEqual([1, false]);
    trial.end();
    await closed;
  });
});

it("matrix units that are not there are a fault, too, unless nothing would use them", async () => {
  const gpu = await testGpu();
  const hasUnits = await closing(openDevice({ gpu }), ({ matrixConfigs }) => matrixConfigs.length > 0);
  await claimingMatrices(async (device) => {
    const workload = { ...product, variants: () => [portable, ...matrixVariants(device, "matmul")] };
    const { fault } = await tryMatrices(device, [workload]);
    if (!hasUnits) expect(fault).toMatch(/^matmul_subgroup_matrix .*subgroup/);
    device.limits.matrixRows = Number.POSITIVE_INFINITY;
    expect(await tryMatrices(device, [workload])).toEqual({ right: [small, large] });
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
