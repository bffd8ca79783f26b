// Memory plans: ever smaller budgets keep less on the device and change no bit of a picture; what is allocated is what
// was planned.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allResident, loadCheckpoint, openCheckpoint } from "../../src/engine/checkpoint.js";
import type { EngineOptions } from "../../src/engine/engine.js";
import { type Device, openDevice } from "../../src/engine/gpu/device.js";
import { choosePlan, type MemoryPlan } from "../../src/engine/memory.js";
import { loadConfigs } from "../../src/engine/models/flux2/config.js";
import { recordDecoder, recordEncoder } from "../../src/engine/models/flux2/vae.js";
import type { CheckpointSource } from "../../src/engine/weights/source.js";
import { testDevice } from "../gpu.js";
import { runRecorded } from "../kernels/reference.js";
import { tinySource } from "./checkpoints.js";
import { countedSource, draw, openShared, openTiny, pattern, testGpu } from "./open.js";
import { spyOn } from "./spied-gpu.js";
import { failure, sameBytes } from "./weights/fixtures.js";

const request = { width: 256, height: 256, steps: 2, references: [pattern(96, 64)] };
const shape = { width: 256, height: 256, references: [{ width: 96, height: 64 }], isGuided: false };

describe("a smaller budget", () => {
  let device: Device;
  const plans: MemoryPlan[] = [];
  beforeAll(async () => {
    device = await openDevice({ gpu: await testGpu() });
    const opened = await openCheckpoint(tinySource());
    let budget = Number.POSITIVE_INFINITY;
    for (;;) {
      const plan = await choosePlan(opened, shape, budget, { facts: device }).catch(() => undefined);
      if (!plan) break;
      plans.push(plan);
      budget = plan.totalBytes - 1;
    }
  });
  afterAll(() => device.close());

  it("lets the text encoder go first, then the transformer, and takes less each time", () => {
    const kept = plans.map(({ residencies }) => `${residencies.textEncoder} ${residencies.transformer}`);
    const order = ["resident resident", "streamed resident", "streamed streamed"];
    expect([...new Set(kept)]).toEqual(order);
    expect(plans.map((plan) => plan.totalBytes)).toEqual(
      plans.map((plan) => plan.totalBytes).toSorted((a, b) => b - a),
    );
    const [first, last] = [plans[0] as MemoryPlan, plans.at(-1) as MemoryPlan];
    expect(last.weights.transformer).toBeLessThan((first.weights.transformer as number) / 4);
    expect(last.weights.vae).toBe(first.weights.vae);
  });

  it("gives the same picture in the memory that was planned", async () => {
    const unlimited = await openShared();
    const whole = await draw(unlimited, request);
    await unlimited.close();
    for (const { totalBytes, residencies } of plans) {
      const engine = await openTiny({ memoryBudgetBytes: totalBytes, limits: device.limits });
      for (const prompt of ["a red circle", "a blue square", "a red circle"]) {
        const { data } = await draw(engine, { ...request, prompt });
        if (prompt === "a red circle") expect(sameBytes(data, whole.data)).toBe(true);
      }
      expect(engine.info.residencies).toEqual(residencies);
      expect(engine.info.peakDeviceBytes).toBe(totalBytes);
      await engine.close();
    }
  });

  it("that nothing fits into is refused with the least that is needed, before anything is made", async () => {
    const least = (plans.at(-1) as MemoryPlan).totalBytes;
    const engine = await openTiny({ memoryBudgetBytes: least - 16 }).catch(() => undefined);
    const refused = engine ? draw(engine, request) : openTiny({ memoryBudgetBytes: least - 16 });
    const error = await failure(refused, "device.memory_budget_exceeded");
    expect(error.message).toMatch(/takes at least \d+ bytes on the device, the memory budget is \d+: raise it/);
  });
});

it("a picture that no plan brings into the device's buffers is refused with the least one that it needs", async () => {
  const { device: real } = await testDevice();
  const device = Object.create(real, { limits: { value: { ...real.limits, bufferBytes: 2 ** 20 } } }) as Device;
  const refused = choosePlan(await openCheckpoint(tinySource()), shape, undefined, { facts: device });
  const { message } = await failure(refused, "device.limit_exceeded");
  const [, needed] = /^a picture of 256×256 needs a buffer of at least (\d+) bytes, the device allows 1048576:/.exec(
    message,
  )!;
  // The picture before its last convolution.
  expect(Number(needed)).toBe(256 * 256 * 16 * 4);
});

/** No header, and no rows of the embedding table. */
const isWeights = (path: string, bytes: number) => path.endsWith(".safetensors") && bytes > 64 * 1024;
const folderOf = (path: string) => path.split("/")[0];

describe("an engine that has room for small pictures with all weights", () => {
  const large = { width: 512, height: 384 };
  let memoryBudgetBytes: number;
  let read: string[] = [];
  const source = tinySource();
  const watched: CheckpointSource = {
    list: () => source.list(),
    read: (path, begin, end) => {
      if (isWeights(path, end - begin)) read.push(path);
      return source.read(path, begin, end);
    },
  };
  beforeAll(async () => {
    const { device } = await testDevice();
    const shape = { ...large, references: [], isGuided: false };
    const opened = await openCheckpoint(tinySource());
    memoryBudgetBytes = Number.POSITIVE_INFINITY;
    // The most with which the large one displaces the text encoder.
    for (let kept = allResident(opened.components); kept.textEncoder === "resident"; ) {
      const plan = await choosePlan(opened, shape, memoryBudgetBytes - 1, { facts: device });
      kept = plan.residencies;
      memoryBudgetBytes = plan.totalBytes;
    }
  });

  it("lets weights go for a large one, and brings those and no others back", async () => {
    const engine = await openTiny({ memoryBudgetBytes, source: watched });
    const small = await draw(engine, { width: 64, height: 64 });
    expect(engine.info.residencies.textEncoder).toBe("resident");
    const { weightBytes, deviceBytes } = engine.info;
    const { width, height } = await draw(engine, large);
    expect([width, height]).toEqual([512, 384]);
    expect(engine.info.residencies).toEqual({ textEncoder: "streamed", transformer: "resident" });
    expect(engine.info.weightBytes).toBeLessThan(weightBytes);

    read = [];
    expect(sameBytes((await draw(engine, { width: 64, height: 64 })).data, small.data)).toBe(true);
    expect(engine.info).toMatchObject({
      residencies: { textEncoder: "resident", transformer: "resident" },
      weightBytes,
      deviceBytes,
    });
    expect(new Set(read.map(folderOf))).toEqual(new Set(["text_encoder"]));
    read = [];
    await draw(engine, { width: 64, height: 64, prompt: "another" });
    expect(read).toEqual([]);
    expect(engine.info.peakDeviceBytes).toBeLessThanOrEqual(memoryBudgetBytes);
  });

  it("refuses a picture for which they cannot be read, and tries again with the next one", async () => {
    let isBroken = false;
    const breaking: CheckpointSource = {
      list: () => source.list(),
      read: (path, begin, end) => {
        if (isBroken && isWeights(path, end - begin)) throw new Error("the disk is gone");
        return source.read(path, begin, end);
      },
    };
    const engine = await openTiny({ memoryBudgetBytes, source: breaking });
    const small = await draw(engine, { width: 64, height: 64 });
    await draw(engine, large);
    isBroken = true;
    await failure(draw(engine, { width: 64, height: 64 }), "file.unreadable");
    expect(engine.failure).toBeUndefined();
    expect(engine.info.residencies.textEncoder).toBe("streamed");
    isBroken = false;
    expect(sameBytes((await draw(engine, { width: 64, height: 64 })).data, small.data)).toBe(true);
    expect(engine.info.residencies).toEqual({ textEncoder: "resident", transformer: "resident" });
  });

  it("does not load what the expected picture leaves no room for", async () => {
    read = [];
    const engine = await openTiny({ memoryBudgetBytes, source: watched, expected: large });
    const folders = read.map(folderOf);
    // Of the text encoder its embedding, of which a digest is made.
    expect(folders.filter((folder) => folder === "text_encoder")).toHaveLength(1);
    expect(new Set(folders)).toEqual(new Set(["text_encoder", "transformer", "vae"]));
    expect(engine.info.residencies).toEqual({ textEncoder: "streamed", transformer: "resident" });
    read = [];
    await draw(engine, large);
    expect(new Set(read.map(folderOf))).toEqual(new Set(["text_encoder"]));
  });

  it("does not open for one that cannot be drawn, a budget or not", async () => {
    const spy = spyOn(await testGpu());
    const expected = { width: 512, height: 512, references: [{ width: 2048, height: 1024 }] };
    const opening = (options: Partial<EngineOptions>) => {
      return openTiny({ gpu: spy.gpu, source: countedSource(spy), ...options });
    };
    await failure(opening({ memoryBudgetBytes: 30e6, expected }), "device.memory_budget_exceeded");
    await failure(opening({ limits: { bufferBytes: 2 ** 23 }, expected }), "device.limit_exceeded");
    await failure(opening({ expected: { references: [{ width: 8, height: 8 }] } }), "reference.too_small");
    for (const { counts, buffers } of spy.devices) {
      expect(counts.writes).toBe(0);
      expect(buffers.size).toBe(0);
    }
  });
});

it.each([
  [5, 3],
  [8, 16],
])("the VAE gives the same bits in bands of any size, on a grid of %i × %i", async (w, h) => {
  const test = await testDevice();
  const { device } = test;
  const checkpoint = await loadCheckpoint(device, await openCheckpoint(tinySource()));
  const { vae: config } = await loadConfigs(tinySource(), "FLUX.2");
  const vae = checkpoint.weights.vae!;
  const [width, height] = [16 * w, 16 * h];
  const tokens = Array.from({ length: w * h * 4 * config.latentChannels }, (_, i) => Math.sin(i * 12.9898) * 1.5);
  const pixels = Array.from({ length: width * height * 3 }, (_, i) => Math.cos(i * 4.1414));
  const run = (bandBytes: number, remakes: boolean) =>
    runRecorded(test, (recorder, inputs) => {
      const options = { bandBytes, remakes, operands: "f32" as const };
      const latents = inputs.tensor("tokens", h * w, 4 * config.latentChannels, tokens);
      const picture = { tensor: inputs.tensor("picture", height * width, 3, pixels), height, width };
      return {
        decoded: recordDecoder(recorder, config, vae, latents, { w, h }, options).tensor,
        encoded: recordEncoder(recorder, config, vae, picture, options),
      };
    });
  const whole = await run(Number.MAX_SAFE_INTEGER, false);
  for (const [bandBytes, remakes] of [
    [1, false],
    [1, true],
    [100_000, true],
  ] as const) {
    const banded = await run(bandBytes, remakes);
    expect(banded.decoded.words).toEqual(whole.decoded.words);
    expect(banded.encoded.words).toEqual(whole.encoded.words);
  }
  checkpoint.close();
});
