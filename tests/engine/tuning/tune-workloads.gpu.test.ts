// Tuning on a device: what becomes of its time, and of choices when the device is lost.

import { describe, expect, it } from "vitest";
import type { Device } from "../../../src/engine/gpu/device.js";
import { ordinaryGpu, type Tuning } from "../../../src/engine/gpu/facts.js";
import { Recorder } from "../../../src/engine/gpu/recorder.js";
import { attentionWorkload } from "../../../src/engine/ops/attention.js";
import { choiceKey, chooseVariant, type Variant } from "../../../src/engine/ops/variants.js";
import { type TunedWorkload, tuningOf } from "../../../src/engine/tuning/choices.js";
import { tuneWorkloads } from "../../../src/engine/tuning/tune-workloads.js";
import { testDevice } from "../../gpu.js";
import { wrap } from "../spied-gpu.js";
import { among, matmul, open, portable, tuneAll, tuneOne } from "./tuned.js";

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
});
