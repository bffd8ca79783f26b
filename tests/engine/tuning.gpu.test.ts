// Tuning on a device: workloads come from the plan, and a variant that is wrong, does not compile or takes the device with
// it is excluded and told, never chosen. Variants with such faults are put beside an operation's own.

import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import { type Device, openDevice } from "../../src/engine/gpu/device.js";
import { ordinaryGpu, type Tuning } from "../../src/engine/gpu/facts.js";
import { Recorder } from "../../src/engine/gpu/recorder.js";
import { attentionWorkload } from "../../src/engine/ops/attention.js";
import { convolutionWorkload } from "../../src/engine/ops/conv2d.js";
import { matmulWorkload } from "../../src/engine/ops/matmul.js";
import {
  choiceKey,
  chooseVariant,
  type Extents,
  type Variant,
  variantName,
  type Workload,
} from "../../src/engine/ops/variants.js";
import type { ProgressEvent } from "../../src/engine/request.js";
import { MadeInputs } from "../../src/engine/sample-inputs.js";
import {
  posedWorkloads,
  type TunedWorkload,
  type TunedWorkloads,
  type TuneWorkloadsOptions,
  tuneKernels,
  tuneWorkloads,
  tuningOf,
} from "../../src/engine/tuning.js";
import { testDevice } from "../gpu.js";
import { tinySource } from "./checkpoints.js";
import { openTiny, testGpu } from "./open.js";
import { spyOn, wrap } from "./spied-gpu.js";
import { failure } from "./weights/fixtures.js";

const product = { rows: 200, k: 96, cols: 72, a: "f32", weight: "bf16", operands: "f32", isGated: false } as const;
const matmul = matmulWorkload(product);
const portable: Variant = { stem: "matmul", tunables: {}, tileRows: 64, tileCols: 64 };

/** A device, and what a test does to it. */
async function open(change: (device: Device) => void = () => undefined): Promise<Device> {
  const device = await openDevice({ gpu: spyOn(await testGpu()).gpu });
  change(device);
  return device;
}

type TestOptions = Partial<TuneWorkloadsOptions> & { open?: () => Promise<Device> };

/** Choices by the workloads' names. */
async function tuneAll(workloads: Workload[], options: TestOptions = {}): Promise<TunedWorkloads> {
  const tuned = await tuneWorkloads(workloads, options.open ?? open, { seconds: 60, ...options });
  return Object.fromEntries(Object.values(tuned).map((choice) => [choice.name, choice]));
}

async function tuneOne(workload: Workload, options?: TestOptions): Promise<TunedWorkload> {
  return (await tuneAll([workload], options))[workload.name]!;
}

/** A workload with these variants, and one more that they are checked against: `sound` under the name "reference". */
function among(workload: Workload, sound: Variant, ...variants: Variant[]): Workload {
  const reference: Variant = { ...sound, stem: "reference" };
  return {
    ...workload,
    portable: reference.stem,
    variants: () => [...variants, reference],
    sample: (recorder, inputs, part, variant) =>
      workload.sample(recorder, inputs, part, variant === reference ? sound : variant),
  };
}

describe("variants", () => {
  it.each<[string, Workload]>([
    ["a product", matmul],
    ["a gated product", matmulWorkload({ ...product, isGated: true, weight: "f32" })],
    ["a product of f16", matmulWorkload({ ...product, a: "f16", weight: "f16", operands: "f16", k: 90 })],
    ["a convolution", convolutionWorkload({ pixels: 900, inputs: 12, outputs: 24, weight: "bf16", operands: "f32" })],
    ["attention", attentionWorkload({ tokens: 70, heads: 3, headSize: 24, operands: "f16" })],
  ])("of %s compute the same", async (_, workload) => {
    const choice = await tuneOne(workload);
    const { device } = await testDevice();
    expect(choice.candidates.map(({ variant }) => variant)).toEqual(workload.variants(device).map(variantName));
    for (const { error } of choice.candidates) expect(error).toBeUndefined();
    if (choice.candidates.length > 1) expect(choice.ms).toBeGreaterThan(0);
  });

  it("that are faster are chosen", async () => {
    const slow: Variant = { ...portable, stem: "slow" };
    const large: Workload = {
      ...{ ...matmul, extents: { rows: 2000, cols: 72 }, flops: 10 * matmul.flops },
      sample: (recorder, inputs, part, variant) => {
        for (let i = 0; i < 5 && variant === slow; i++) matmul.sample(recorder, inputs, part, portable);
        return matmul.sample(recorder, inputs, part, portable);
      },
    };
    const choice = await tuneOne(among(large, portable, slow));
    expect(choice.variant).toBe("reference");
    expect(choice.builtin_ms).toBeGreaterThan(1.5 * choice.ms!);
  });

  const faults: [string, Variant, RegExp][] = [
    // It would be the fastest by far.
    ["leaves rows out", { ...portable, tunables: { WEIGHT_TYPE: 1 }, tileRows: 256 }, /its result is off by NaN/],
    ["reads the weight as another type", { ...portable, tunables: { WEIGHT_TYPE: 2 } }, /its result is off by/],
    ["does not exist", { ...portable, stem: "matmul_quick" }, /there is no kernels\/matmul_quick\.wgsl/],
    ["is another operation's", { ...portable, stem: "copy_columns" }, /copy_columns/],
    ["has a tunable of its own", { ...portable, tunables: { MAGIC: 1 } }, /no tunable MAGIC/],
  ];
  it.each(faults)("one that %s is never chosen, and is told", async (_, variant, message) => {
    const choice = await tuneOne(among(matmul, portable, portable, variant));
    expect(choice.variant).not.toBe(variantName(variant));
    expect(choice.candidates[1]!.error).toMatch(message);
    // Nor if it is the built-in choice.
    const builtin = await tuneOne(among(matmul, portable, variant));
    expect(builtin.variant).toBe("reference");
    expect(builtin.candidates[0]!.error).toMatch(message);
  });

  it("one that the device refuses to compile is excluded, and the device goes on", async () => {
    // The keys of a tile do not fit into workgroup memory.
    const attention = attentionWorkload({ tokens: 64, heads: 2, headSize: 64, operands: "f32" });
    const sound: Variant = { stem: "attention", tunables: { KEYS: 16 }, tileRows: 64, tileCols: 64 };
    const huge: Variant = { ...sound, tunables: { KEYS: 8192 } };
    const workload = among(attention, sound, huge);
    const devices: Device[] = [];
    const openOne = async () => {
      devices.push(await open());
      return devices[0]!;
    };
    const tuned = await tuneAll([workload, matmul], { open: openOne });
    expect(tuned[workload.name]).toMatchObject({ variant: "reference KEYS=16", candidates: [{}, {}] });
    expect(tuned[workload.name]!.candidates[0]!.error).toMatch(/workgroup|storage/i);
    expect(devices.map(({ failure }) => failure)).toEqual([undefined]);
  });

  it("one that the device is lost to is excluded from all workloads, and others are still measured", async () => {
    let losses = 0;
    let opened: Device | undefined;
    const deadly: Variant = { ...portable, stem: "deadly" };
    const dangerous = (workload: Workload): Workload => {
      const sample: Workload["sample"] = (recorder, inputs, part, variant) => {
        if (variant !== deadly) return workload.sample(recorder, inputs, part, variant);
        losses += 1;
        opened?.gpu.destroy();
        return workload.sample(recorder, inputs, part, portable);
      };
      return among({ ...workload, sample }, portable, deadly, portable);
    };
    const other = matmulWorkload({ ...product, cols: 40 });
    const openWatched = () =>
      open((device) => {
        opened = device;
      });
    const tuned = await tuneAll([dangerous(matmul), dangerous(other)], { open: openWatched });
    expect(losses).toBe(1);
    for (const { name } of [matmul, other]) {
      expect(tuned[name]!.candidates[0]!.error).toMatch(/the GPU device was lost/);
      expect(tuned[name]!.variant).not.toBe("deadly");
      expect(tuned[name]!.ms).toBeGreaterThan(0);
    }
  });
});

describe("samples", () => {
  it.each<[string, Workload, Extents]>([
    ["a gated product", matmulWorkload({ ...product, isGated: true }), { rows: 7, cols: 24 }],
    [
      "a convolution",
      convolutionWorkload({ pixels: 900, inputs: 12, outputs: 24, weight: "bf16", operands: "f32" }),
      { rows: 60, cols: 16 },
    ],
    ["attention", attentionWorkload({ tokens: 70, heads: 3, headSize: 24, operands: "f32" }), { rows: 32, cols: 48 }],
  ])("of %s are what they are asked to be", async (_, workload, part) => {
    const { device } = await testDevice();
    const inputs = new MadeInputs(device);
    for (const asked of [part, workload.extents]) {
      const [variant] = workload.variants(device) as [Variant];
      expect(workload.sample(new Recorder(device), inputs, asked, variant)).toMatchObject(asked);
    }
    inputs.close();
  });

  /** Many terms a sum, so that the whole takes long; its parts are noted in `parts`. */
  const large = (rows: number, cols: number, parts: Extents[] = [], k = 1024): Workload => {
    const workload = matmulWorkload({ ...product, rows, cols, k });
    const sample: Workload["sample"] = (recorder, inputs, part, variant) => {
      parts.push(part);
      return workload.sample(recorder, inputs, part, variant);
    };
    return { ...workload, sample };
  };

  it("have whole tiles of every variant, and several of them", async () => {
    const parts: Extents[] = [];
    const odd: Variant = { ...portable, tunables: { ROWS: 4 }, tileRows: 48 };
    const choice = await tuneOne(among(large(6144, 1024, parts), portable, portable, odd));
    expect(choice.ms).toBeGreaterThan(0);
    expect(parts.length).toBeGreaterThan(5);
    for (const { rows, cols } of parts) expect([rows % 192, cols % 64]).toEqual([0, 0]);
    expect(parts[0]).toEqual({ rows: 2 * 192, cols: 2 * 64 });
    const { rows, cols } = parts.at(-1)!;
    expect((rows * cols) / 192 / 64).toBeGreaterThanOrEqual(16);
  });

  it("end as the whole does, and are the whole where it is small", async () => {
    const parts: Extents[] = [];
    await tuneOne(among(large(300, 200, parts), portable, portable));
    // 4 tiles of 64 rows and 44 rows, 3 tiles of 64 columns and 8 columns.
    expect(parts[0]).toEqual({ rows: 2 * 64 + 44, cols: 2 * 64 + 8 });
    expect(parts.at(-1)).toEqual({ rows: 300, cols: 200 });
  });

  it("do not make a variant of large tiles pay for rows that a part of a tile lacks", async () => {
    const { device } = await testDevice();
    const workload = large(8192, 1024);
    const [kernel] = workload.variants(device) as [Variant];
    const tall: Variant = { ...kernel, stem: "tall", tileRows: 512 };
    const slow: Variant = { ...kernel, stem: "slow" };
    const choice = await tuneOne({
      ...workload,
      portable: "tall",
      variants: () => [slow, tall],
      sample: (recorder, inputs, { rows, cols }, variant) => {
        const whole = { rows: Math.ceil(rows / 512) * 512, cols };
        if (variant === tall) return workload.sample(recorder, inputs, whole, kernel);
        for (let i = 0; i < 2; i++) workload.sample(recorder, inputs, { rows, cols }, kernel);
        return workload.sample(recorder, inputs, { rows, cols }, kernel);
      },
    });
    expect(choice.candidates.map(({ error }) => error)).toEqual([undefined, undefined]);
    expect(choice.variant).toMatch(/^tall/);
  });

  it("that the device has no memory for are no fault of a variant, and are taken again when they are asked for", async () => {
    const full = (device: Device) => {
      let isFull = false;
      wrap(device.gpu, "createBuffer", (call, [descriptor]) => {
        if ((descriptor as GPUBufferDescriptor).label === "a") isFull = true;
        return call();
      });
      wrap(device.gpu, "popErrorScope", async (call) => {
        const isFirst = isFull;
        isFull = false;
        const error = await (call() as Promise<GPUError | null>);
        return isFirst ? { message: "Failed to allocate\nmemory" } : error;
      });
    };
    const convolution = convolutionWorkload({ pixels: 900, inputs: 12, outputs: 24, weight: "bf16", operands: "f32" });
    const workload = among(matmul, portable, { ...portable, tunables: { ROWS: 2 }, tileRows: 32 }, portable);
    const tuned = await tuneAll([workload, convolution], { open: () => open(full) });
    const choice = tuned[workload.name]!;
    expect(choice).toMatchObject({ variant: "matmul ROWS=2", ms: null });
    expect(choice.unmeasured).toBe("the device has no memory for samples (Failed to allocate memory)");
    expect(choice.candidates.map(({ error }) => error)).toEqual([undefined, undefined, undefined]);
    expect(tuned[convolution.name]!.unmeasured).toBeUndefined();
    const known = { [choiceKey((await testDevice()).device, workload)]: choice };
    expect((await tuneOne(workload, { known, complete: true })).ms).toBeGreaterThan(0);
  });

  it("stay as they are where the device has no memory for larger ones, and are timed", async () => {
    const parts: Extents[] = [];
    // Room for what is checked, and not for 16 tiles of 64 rows and 2048 terms a sum.
    const small = async () => openDevice({ gpu: await testGpu(), limits: { bufferBytes: 4 * 1024 * 1024 } });
    const workload = large(6144, 1024, parts, 2048);
    const choice = await tuneOne(among(workload, portable, portable), { open: small });
    expect(choice.unmeasured).toBeUndefined();
    expect(choice.ms).toBeGreaterThan(0);
    const cells = parts.map(({ rows, cols }) => rows * cols);
    expect(Math.max(...cells)).toBeGreaterThan(cells[0]!);
    expect(cells.at(-1)).toBe(cells[0]);
  });

  it("take no more memory than tuning may have, however fast they are", async () => {
    const quick = matmulWorkload({ ...product, rows: 100_000, cols: 64, k: 8 });
    // 64 KiB a row.
    const sample: Workload["sample"] = (recorder, inputs, part, variant) => {
      inputs.tensor("ballast", part.rows, 16 * 1024);
      return quick.sample(recorder, inputs, part, variant);
    };
    const device = await open();
    const choice = await tuneOne(among({ ...quick, sample }, portable, portable), { open: async () => device });
    expect(choice.ms).toBeGreaterThan(0);
    expect(device.peakBytes).toBeLessThan(300 * 1024 * 1024);
  });

  it("are sized by the next variant where one fails on larger ones", async () => {
    const broken: Variant = { ...portable, stem: "broken" };
    const workload = large(6144, 1024);
    const sample: Workload["sample"] = (recorder, inputs, part, variant) => {
      if (variant === broken && part.rows * part.cols > 4 * 64 * 64) throw new Error("too large for it");
      return workload.sample(recorder, inputs, part, portable);
    };
    const choice = await tuneOne(among({ ...workload, sample }, portable, broken, portable));
    expect(choice.candidates[0]!.error).toBe("too large for it");
    // The two that are left are the same kernel.
    expect(["matmul", "reference"]).toContain(choice.variant);
    expect(choice.ms).toBeGreaterThan(0);
  });

  it("are submitted as one, however often they run", async () => {
    const spy = spyOn(await testGpu());
    const few = matmulWorkload({ ...product, rows: 8, cols: 8, k: 8 });
    const choice = await tuneOne(among(few, portable, portable), { open: () => openDevice({ gpu: spy.gpu }) });
    expect(choice.ms).toBeGreaterThan(0);
    // Two variants: checks, a few sizes of samples, and six rounds; a run by itself would take a hundred each time.
    expect(spy.devices[0]!.counts.submissions).toBeLessThan(60);
  });

  it("that need a larger buffer than the device has, likewise", async () => {
    const small = async () => openDevice({ gpu: await testGpu(), limits: { bufferBytes: 4 * 1024 * 1024 } });
    const workload = matmulWorkload({ ...product, rows: 2000, k: 8192 });
    const choice = await tuneOne(among(workload, portable, portable), { open: small });
    expect(choice.unmeasured).toMatch(/no memory for samples \("a" needs a buffer of \d+ bytes/);
    expect(choice.candidates.map(({ error }) => error)).toEqual([undefined, undefined]);
  });
});

it("choices of sizes that share a name and not their variants stand side by side", async () => {
  const other: Variant = { ...portable, tunables: { ROWS: 2 }, tileRows: 32 };
  const [few, many] = [among(matmul, portable, portable), among(matmul, portable, other, portable)];
  const tuned = await tuneWorkloads([few, many], open, { seconds: 1e-6 });
  const named = (choice: TunedWorkload) => ({ ...choice, variant: choice.candidates.at(-2)!.variant });
  const tuning = tuningOf(Object.fromEntries(Object.entries(tuned).map(([key, choice]) => [key, named(choice)])));
  expect([...tuning.values()]).toEqual(["matmul", "matmul"]);
  const chosenBy = (tuning: Tuning) => {
    const recorder = new Recorder({ ...ordinaryGpu, tuning });
    return [few, many].map((workload) => chooseVariant(recorder, workload));
  };
  expect(chosenBy(tuning)).toEqual([portable, portable]);
  // A choice for the name alone holds for both.
  expect(chosenBy(new Map([[matmul.name, "reference"]])).map(({ stem }) => stem)).toEqual(["reference", "reference"]);
});

it.each(["f32", "f16"] as const)("a checkpoint in %s is planned and measured on one device", async (precision) => {
  const tried = new Set<string>();
  const spy = spyOn(await testGpu(), {
    onDevice: ({ device }) =>
      wrap(device, "createShaderModule", (call, [descriptor]) => {
        tried.add((descriptor as GPUShaderModuleDescriptor).label ?? "");
        return call();
      }),
  });
  const what = { gpu: spy.gpu, source: tinySource(), precision, limits: { matrixRows: 1 } };
  await tuneKernels({ ...what, width: 32, height: 32, seconds: 1e-6 });
  expect(spy.devices).toHaveLength(1);
  const { device } = await testDevice();
  const isTried = [...tried].some((label) => label.endsWith("_subgroup_matrix"));
  expect(isTried).toBe(device.matrixConfigs.length > 0 && precision === "f16");
});

it("what was measured before the GPU fails for good is told", async () => {
  const told: TunedWorkload[] = [];
  const gone = new Error("no GPU any more");
  const lost = (device: Device) => {
    if (told.length > 0) throw gone;
    wrap(device.gpu, "createShaderModule", (call) => {
      if (told.length > 0) device.gpu.destroy();
      return call();
    });
  };
  const attention = attentionWorkload({ tokens: 64, heads: 2, headSize: 64, operands: "f32" });
  const sound: Variant = { stem: "attention", tunables: { KEYS: 16 }, tileRows: 64, tileCols: 64 };
  const workloads = [among(matmul, portable, portable), among(attention, sound, sound)];
  const onChoice = (_: string, choice: TunedWorkload) => void told.push(choice);
  await expect(tuneAll(workloads, { open: () => open(lost), onChoice })).rejects.toBe(gone);
  expect(told).toMatchObject([{ name: matmul.name, ms: expect.any(Number) }]);
});

describe("time", () => {
  it("that is up leaves the built-in choices, which count as known until they are asked for", async () => {
    const workload = among(matmul, portable, portable);
    const choice = await tuneOne(workload, { seconds: 1e-6 });
    expect(choice).toMatchObject({ variant: "matmul", ms: null, builtin_ms: null, unmeasured: "no time was left" });
    const known = { [choiceKey((await testDevice()).device, workload)]: choice };
    expect(await tuneOne(workload, { known })).toEqual(choice);
    expect((await tuneOne(workload, { known, complete: true })).ms).toBeGreaterThan(0);
  });

  it("bounds the whole", async () => {
    const started = performance.now();
    const events: ProgressEvent[] = [];
    const what = {
      gpu: await testGpu(),
      source: tinySource(),
      onProgress: (event: ProgressEvent) => events.push(event),
    };
    const workloads = await tuneKernels({ ...what, width: 64, height: 64, seconds: 1 });
    expect(performance.now() - started).toBeLessThan(15_000);
    const total = Object.keys(workloads).length;
    expect(events.map(({ done }) => done)).toEqual(Array.from({ length: total && total + 1 }, (_, i) => i));
    for (const event of events) expect(event).toMatchObject({ stage: "tune", total });
  });

  /** Compiles everything but the kernel of products until `end` is called, and tells when the device is closed. */
  async function stuck() {
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    let close = () => {};
    const closed = new Promise<void>((resolve) => {
      close = resolve;
    });
    let isClosed = false;
    const onCompile: (() => void)[] = [];
    const device = await open(({ gpu }) => {
      wrap(gpu, "createComputePipelineAsync", async (call, [descriptor]) => {
        if ((descriptor as GPUComputePipelineDescriptor).label !== "matmul_f16") return call();
        for (const tell of onCompile) tell();
        await ended;
        return call();
      });
      wrap(gpu, "destroy", (call) => {
        isClosed = true;
        close();
        return call();
      });
    });
    return { open: async () => device, end, closed, isClosed: () => isClosed, onCompile };
  }

  it("that a compiler takes is not waited for, and the device is closed when it ends", async () => {
    const { device } = await testDevice();
    const compiled: Variant = { stem: "matmul_f16", tunables: {}, tileRows: 64, tileCols: 64 };
    if (!device.features.has("shader-f16")) return;
    const workload = among(matmul, portable, portable, compiled);
    const short = await stuck();
    expect(await tuneOne(workload, { ...short, seconds: 1 })).toMatchObject({
      ...{ variant: "matmul", ms: null, unmeasured: "no time was left" },
      candidates: [{ error: undefined }, { error: undefined }, { error: undefined }],
    });
    expect(short.isClosed()).toBe(false);
    short.end();
    await short.closed;

    // What the engine will take is compiled in any case.
    const [long, builtin] = [await stuck(), await stuck()];
    const choices = await Promise.all([
      tuneOne(workload, { ...long, seconds: 6 }),
      tuneOne(among(matmul, portable, compiled), { ...builtin, seconds: 6 }),
    ]);
    const errors = choices.map(({ candidates }) => candidates.map(({ error }) => error));
    expect(errors).toEqual([
      [undefined, expect.stringMatching(/not run after \d+ s/), undefined],
      [undefined, undefined],
    ]);
    expect(choices.map(({ variant }) => variant)).toEqual(["matmul", "matmul_f16"]);
    for (const { end, closed } of [long, builtin]) {
      end();
      await closed;
    }
  });

  it("is not spent on a kernel again that did not compile in it before", async () => {
    const { device } = await testDevice();
    if (!device.features.has("shader-f16")) return;
    const compiled: Variant = { stem: "matmul_f16", tunables: {}, tileRows: 64, tileCols: 64 };
    const workload = among(matmul, portable, portable, compiled);
    const first = await stuck();
    const key = choiceKey(device, workload);
    const { [key]: choice } = await tuneWorkloads([workload], first.open, { seconds: 6 });
    expect(choice).toMatchObject({ ms: null, unmeasured: "no time was left" });
    const second = await stuck();
    const again = await tuneOne(workload, { ...second, seconds: 60, known: { [key]: choice! }, complete: true });
    expect(again.unmeasured).toBeUndefined();
    expect(again.ms).toBeGreaterThan(0);
    expect(again.candidates[1]!.error).toMatch(/not run after/);
    first.end();
    await first.closed;
  });

  it("can be cut short also while a kernel is being compiled", async () => {
    const { device } = await testDevice();
    if (!device.features.has("shader-f16")) return;
    const compiled: Variant = { stem: "matmul_f16", tunables: {}, tileRows: 64, tileCols: 64 };
    const endless = await stuck();
    const stop = new AbortController();
    endless.onCompile.push(() => stop.abort());
    const workload = among(matmul, portable, portable, compiled);
    await expect(tuneOne(workload, { ...endless, seconds: 3600, signal: stop.signal })).rejects.toThrow(/abort/);
    expect(endless.isClosed()).toBe(false);
    endless.end();
    await endless.closed;
  });

  it("can be cut short", async () => {
    const stop = new AbortController();
    const what = { gpu: await testGpu(), source: tinySource(), width: 64, height: 64 };
    const running = tuneKernels({ ...what, signal: stop.signal, onProgress: () => stop.abort() });
    const { device } = await testDevice();
    const checkpoint = await openCheckpoint(tinySource());
    const shape = { width: 64, height: 64, references: [], isGuided: false, steps: 4 };
    if ((await posedWorkloads(device, checkpoint, shape, "f32")).length > 0)
      await failure(running, "request.cancelled");
    else expect(await running).toEqual({});
  });
});

it("workloads are those that a picture poses, the most expensive first, and what is chosen for them is taken", async () => {
  const { device } = await testDevice();
  const checkpoint = await openCheckpoint(tinySource());
  const shape = { width: 64, height: 64, references: [], isGuided: false, steps: 4 };
  const workloads = await posedWorkloads(device, checkpoint, shape, "f32");
  expect(new Set(workloads.map(({ name }) => name)).size).toBe(workloads.length);
  for (const workload of workloads) expect(workload.variants(device).length).toBeGreaterThan(1);
  if (device.isSoftware) {
    for (const operation of ["matmul ", "conv2d ", "attention "]) {
      expect(workloads.some(({ name }) => name.startsWith(operation))).toBe(true);
    }
  }
  // The counted plan poses what the real one poses: every choice is asked for.
  const tuning = new Map(workloads.map((workload) => [workload.name, "none of these"]));
  const asked = new Set<string>();
  tuning.get = (name) => void asked.add(name);
  const engine = await openTiny({ tuning });
  await engine.generate({ prompt: "a red circle", width: 64, height: 64, steps: 1 });
  for (const { name } of workloads) expect(asked).toContain(name);
});
