// Trials of variants: one that is wrong, does not compile or takes the device with it is excluded and told, never chosen,
// and samples are what the times of a whole workload can be told from.

import { describe, expect, it } from "vitest";
import { type Device, openDevice } from "../../../src/engine/gpu/device.js";
import { Recorder } from "../../../src/engine/gpu/recorder.js";
import { attentionWorkload } from "../../../src/engine/ops/attention.js";
import { convolutionWorkload } from "../../../src/engine/ops/conv2d.js";
import { matmulWorkload } from "../../../src/engine/ops/matmul.js";
import { choiceKey, type Extents, type Variant, variantName, type Workload } from "../../../src/engine/ops/variants.js";
import { MadeInputs } from "../../../src/engine/tuning/inputs.js";
import { testDevice } from "../../gpu.js";
import { testGpu } from "../open.js";
import { spyOn, wrap } from "../spied-gpu.js";
import { among, matmul, open, portable, product, tuneAll, tuneOne } from "./tuned.js";

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
