// What the engine makes on the device, and when: nothing after a request's first step, nothing for a size it knows, no
// shader for a new size, and what is given up is destroyed. Counted at WebGPU's own interface.

import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import { openDevice } from "../../src/engine/gpu/device.js";
import { choosePlan, decodings } from "../../src/engine/memory.js";
import type { GenerateRequest } from "../../src/engine/request.js";
import { testLimits } from "../gpu.js";
import { baseSource, tinySource } from "./checkpoints.js";
import { countedSource, draw, openTiny, pattern, small, testGpu } from "./open.js";
import { resetCounts, type SpiedDevice, spyOn, wrap } from "./spied-gpu.js";
import { failure, sameBytes } from "./weights/fixtures.js";

async function openSpied(options: Parameters<typeof openTiny>[0] = {}) {
  const spy = spyOn(await testGpu());
  const engine = await openTiny({ gpu: spy.gpu, ...options });
  return { engine, device: spy.devices[0] as SpiedDevice };
}

const nothingMade = { buffers: 0, modules: 0, pipelines: 0, groups: 0 };

it("nothing is made between a request's first step and its end", async () => {
  const { engine, device } = await openSpied({ source: await baseSource() });
  let stepsSeen = 0;
  await engine.generate({
    ...small,
    steps: 3,
    numImages: 2,
    references: [pattern(64, 64)],
    onProgress: ({ stage, done, image }) => {
      if (stage === "denoise" && done === 1 && image === 0) resetCounts(device);
      stepsSeen += stage === "denoise" && done > 0 ? 1 : 0;
    },
  });
  expect(stepsSeen).toBe(6);
  expect(device.counts).toMatchObject(nothingMade);
  expect(device.counts.submissions).toBeGreaterThan(6);
});

it("a prompt, a seed, a number of steps or of images makes nothing new", async () => {
  const { engine, device } = await openSpied();
  await draw(engine);
  resetCounts(device);
  for (const request of [{}, { prompt: "another" }, { seed: 8n }, { steps: 2 }]) await draw(engine, request);
  await engine.generate({ ...small, numImages: 3 });
  expect(device.counts).toMatchObject(nothingMade);
});

it("a second size compiles nothing, unless so few or so many pixels take other kernels", async () => {
  const { engine, device } = await openSpied();
  await draw(engine, { width: 64, height: 64 });
  resetCounts(device);
  for (const [width, height] of [
    [80, 64],
    [48, 96],
    [96, 48],
  ])
    await draw(engine, { width, height });
  expect(device.counts).toMatchObject({ modules: 0, pipelines: 0 });
  expect(device.counts.buffers).toBeGreaterThan(0);
});

describe("plans of recent sizes", () => {
  const sizes: Partial<GenerateRequest>[] = [
    { width: 32, height: 32 },
    { width: 64, height: 32 },
    { width: 32, height: 64 },
    { width: 48, height: 48 },
  ];

  it("are kept, three of them, and give identical pictures after switching back and forth", async () => {
    const { engine, device } = await openSpied();
    const first: Uint8Array[] = [];
    for (const size of sizes.slice(0, 3)) first.push((await draw(engine, size)).data);
    resetCounts(device);
    for (const i of [0, 2, 1, 0]) {
      expect(sameBytes((await draw(engine, sizes[i])).data, first[i] as Uint8Array)).toBe(true);
    }
    expect(device.counts).toMatchObject(nothingMade);

    await draw(engine, sizes[3]); // in place of sizes[2], which was not used for longest
    resetCounts(device);
    for (const i of [0, 1]) expect(sameBytes((await draw(engine, sizes[i])).data, first[i] as Uint8Array)).toBe(true);
    expect(device.counts).toMatchObject(nothingMade);
    expect(sameBytes((await draw(engine, sizes[2])).data, first[2] as Uint8Array)).toBe(true);
    expect(device.counts.buffers).toBeGreaterThan(0);
  });

  it("are destroyed when they are given up: the device's bytes return to what they were", async () => {
    const { engine, device } = await openSpied();
    const cycle = async () => {
      for (const size of sizes) await draw(engine, size);
      return device.liveBytes();
    };
    const after = await cycle();
    for (let i = 0; i < 2; i++) expect(await cycle()).toBe(after);
    expect(device.buffers.size).toBeGreaterThan(0);
    expect(engine.info.deviceBytes).toBe(device.liveBytes());
    await engine.close();
    expect(device.buffers.size).toBe(0);
  });

  it("tell references and guidance apart", async () => {
    const { engine, device } = await openSpied({ source: await baseSource() });
    const references = [pattern(64, 64)];
    const other = [{ ...pattern(64, 64), data: new Uint8Array(64 * 64 * 3).fill(90) }];
    const requests = [{}, { references }, { guidance: 1 }];
    const first: Uint8Array[] = [];
    for (const request of requests) first.push((await draw(engine, request)).data);
    expect(new Set(first.map((data) => data.join())).size).toBe(3);
    resetCounts(device);
    for (const [i, request] of requests.entries()) {
      expect(sameBytes((await draw(engine, request)).data, first[i] as Uint8Array)).toBe(true);
    }
    // The same plan with another reference of that size: its tokens are not those of the one before.
    expect(sameBytes((await draw(engine, { references: other })).data, first[1] as Uint8Array)).toBe(false);
    expect(device.counts).toMatchObject(nothingMade);
  });

  it("compute a prompt and a reference that they hold once, whatever else changes", async () => {
    const { engine, device } = await openSpied();
    const references = [pattern(64, 64), { ...pattern(64, 64), data: new Uint8Array(64 * 64 * 3).fill(90) }];
    const submissions = async (request: Partial<GenerateRequest>) => {
      resetCounts(device);
      const { data } = await draw(engine, { references, ...request });
      return { data, count: device.counts.submissions };
    };
    const first = await submissions({});
    const again = await submissions({});
    expect(sameBytes(again.data, first.data)).toBe(true);
    const otherPrompt = await submissions({ prompt: "another" });
    const otherReference = await submissions({ prompt: "another", references: references.toReversed() });
    expect(again.count).toBeLessThan(otherPrompt.count);
    expect(again.count).toBeLessThan(otherReference.count);
    expect(otherPrompt.count).toBeLessThan(first.count);
    const back = await submissions({});
    expect(sameBytes(back.data, first.data)).toBe(true);
  });

  it("that trace are destroyed with their request, and leave the kept ones alone", async () => {
    const { engine, device } = await openSpied();
    await draw(engine);
    const bytes = device.liveBytes();
    await draw(engine, { trace: { detail: true, write: () => undefined } });
    expect(device.liveBytes()).toBe(bytes);
    const broken = new Error("the file is full");
    const write = () => {
      throw broken;
    };
    await expect(draw(engine, { trace: { detail: false, write } })).rejects.toBe(broken);
    expect(device.liveBytes()).toBe(bytes);
    resetCounts(device);
    await draw(engine);
    expect(device.counts).toMatchObject(nothingMade);
  });
});

describe("a picture that the device has no memory for", () => {
  it("fails alone: the engine draws smaller ones, and nothing of it is left", async () => {
    const { engine, device } = await openSpied();
    const before = (await draw(engine)).data;
    const bytes = device.liveBytes();
    let isFull = true;
    wrap(device.device, "popErrorScope", async (call) => {
      const error = await (call() as Promise<GPUError | null>);
      return isFull ? { message: "Failed to allocate\nmemory" } : error;
    });
    const error = await failure(draw(engine, { width: 64 }), "device.out_of_memory");
    expect(error.message).toMatch(/no memory for the \d+ bytes that a picture of this size takes/);
    expect(device.liveBytes()).toBe(bytes);
    isFull = false;
    expect(sameBytes((await draw(engine)).data, before)).toBe(true);
    await expect(draw(engine, { width: 64 })).resolves.toMatchObject({ width: 64 });
  });

  it("in one go is drawn with the VAE in bands, the same to the last bit", async () => {
    const { engine, device } = await openSpied();
    let tries = 0;
    wrap(device.device, "popErrorScope", async (call) => {
      const error = await (call() as Promise<GPUError | null>);
      tries += 1;
      return tries === 1 ? { message: "Failed to allocate memory" } : error;
    });
    const { data } = await draw(engine, { width: 256, height: 256 });
    expect(tries).toBe(2);
    const whole = await draw(await openTiny(), { width: 256, height: 256 });
    expect(sameBytes(data, whole.data)).toBe(true);
    const { data: other } = await draw(engine);
    expect(sameBytes(other, (await draw(await openTiny())).data)).toBe(true);
  });

  it("because its widest image would exceed a buffer, likewise: as the plan says", async () => {
    const size = { width: 1024, height: 512 };
    const { data } = await draw(await openTiny(), size);
    // That image takes 64 MiB of 32 channels, those around it half of that.
    const limits = { ...testLimits(), bufferBytes: 40 * 2 ** 20 };
    const { engine } = await openSpied({ limits });
    expect(sameBytes((await draw(engine, size)).data, data)).toBe(true);

    const device = await openDevice({ gpu: await testGpu(), limits });
    const shape = { ...size, references: [], isGuided: false };
    const plan = await choosePlan(await openCheckpoint(tinySource()), shape, undefined, { facts: device });
    device.close();
    expect(plan).toMatchObject({
      residencies: { textEncoder: "resident", transformer: "resident" },
      decoding: decodings[1],
    });
    expect(plan.largestBufferBytes).toBeLessThanOrEqual(limits.bufferBytes);
    expect(engine.info.peakDeviceBytes).toBe(plan.totalBytes);
  });

  it("because one buffer would exceed the device's limit, likewise", async () => {
    // Room for the largest of the engine's own buffers, the read-back's, and not for 512×512 pixels of 16 channels.
    const { engine, device } = await openSpied({ limits: { bufferBytes: 4 * 1024 * 1024 } });
    await draw(engine);
    const bytes = device.liveBytes();
    const error = await failure(draw(engine, { width: 512, height: 512 }), "device.limit_exceeded");
    expect(error.message).toMatch(/needs a buffer of \d+ bytes, the device allows \d+; ask for a smaller picture/);
    expect(device.liveBytes()).toBe(bytes);
    await draw(engine);
  });
});

describe("memoryBudgetBytes", () => {
  const request = { width: 64, height: 64, references: [pattern(64, 64)] };

  it("that no plan fits into is refused before anything is made", async () => {
    const spy = spyOn(await testGpu());
    const refused = openTiny({ gpu: spy.gpu, source: countedSource(spy), memoryBudgetBytes: 1e6 });
    const error = await failure(refused, "device.memory_budget_exceeded");
    expect(error.message).toMatch(/takes at least \d+ bytes on the device, the memory budget is 1000000: raise it/);
    expect(spy.devices[0]!.counts.writes).toBe(0);
    expect(spy.devices[0]!.buffers.size).toBe(0);
  });

  it("is kept when sizes change: the plan before is given up first", async () => {
    const unlimited = await openSpied();
    const picture = await draw(unlimited.engine, { width: 256, height: 256 });
    const memoryBudgetBytes = unlimited.engine.info.peakDeviceBytes;
    const { engine, device } = await openSpied({ memoryBudgetBytes });
    for (const size of [{ width: 256, height: 256 }, request, { width: 240, height: 256 }]) await draw(engine, size);
    expect(sameBytes((await draw(engine, { width: 256, height: 256 })).data, picture.data)).toBe(true);
    expect(device.liveBytes()).toBe(memoryBudgetBytes);
    expect(engine.info.peakDeviceBytes).toBe(memoryBudgetBytes);
  });

  it("that weights pass through is kept in the step loop: nothing is made there", async () => {
    // What the transformer of the embedded model takes less when its blocks pass through.
    const unlimited = await openSpied();
    await draw(unlimited.engine);
    const { engine, device } = await openSpied({ memoryBudgetBytes: unlimited.device.liveBytes() - 5e6 });
    await draw(engine);
    expect(engine.info.residencies.transformer).toBe("streamed");
    resetCounts(device);
    for (const request of [{}, { prompt: "another" }, { seed: 8n }, { steps: 2 }]) await draw(engine, request);
    expect(device.counts).toMatchObject(nothingMade);
  });
});
