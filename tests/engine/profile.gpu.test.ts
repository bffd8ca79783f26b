// Timing an engine's dispatches: they are those of the plan that draws, and drawing goes on as if nothing had been timed.

import { expect, it } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import { variantName } from "../../src/engine/ops/variants.js";
import { testDevice } from "../gpu.js";
import { tinySource } from "./checkpoints.js";
import { draw, openTiny, testGpu } from "./open.js";
import { posedWorkloads } from "./posed-workloads.js";
import { resetCounts, type SpiedDevice, spyOn } from "./spied-gpu.js";
import { failure, sameBytes } from "./weights/fixtures.js";

const size = { width: 48, height: 32 };

it("times the plan that draws: nothing is compiled for it, and the next picture is the same in the same memory", async () => {
  const spy = spyOn(await testGpu());
  const engine = await openTiny({ gpu: spy.gpu });
  const before = await draw(engine, size);
  const device = spy.devices[0] as SpiedDevice;
  resetCounts(device);
  const bytes = device.liveBytes();
  const timings = await engine.profile(size);
  expect(device.counts).toMatchObject({ modules: 0, pipelines: 0, groups: 0 });
  // The plan is given up: what its stages hold after timing is no prompt's.
  expect(device.liveBytes()).toBeLessThan(bytes);
  expect(timings.find(({ stage, kernel }) => stage === "decode" && kernel === "rgb8")).toBeDefined();
  expect(sameBytes((await draw(engine, size)).data, before.data)).toBe(true);
  expect(device.liveBytes()).toBe(bytes);
});

it("times the kernels that were chosen, in as many dispatches as there are", async () => {
  const { device } = await testDevice();
  const shape = { ...size, references: [], isGuided: false };
  const workloads = posedWorkloads(device, await openCheckpoint(tinySource()), shape, "f32");
  // A kernel of another file than the built-in choice's, wherever there is one.
  const others = workloads.flatMap(({ name, variants }) => {
    const [first, ...rest] = variants(device);
    const other = rest.find(({ stem }) => stem !== first!.stem);
    return other ? [{ name, other }] : [];
  });
  const tuning = new Map(others.map(({ name, other }) => [name, variantName(other)]));
  const limits = { dispatchFlops: 1e6 };
  const engine = await openTiny({ tuning, limits });
  const timings = await engine.profile(size);
  const timed = new Set(timings.map(({ kernel }) => kernel));
  for (const { other } of others) expect(timed).toContain(other.stem);
  const count = (all: typeof timings) => all.reduce((sum, timing) => sum + timing.count, 0);
  expect(count(timings)).toBeGreaterThan(count(await (await openTiny()).profile(size)));
});

it("is refused where the device cannot", async () => {
  const { gpu } = spyOn(await testGpu(), { adapter: { withoutFeatures: ["timestamp-query"] } });
  const engine = await openTiny({ gpu });
  await failure(engine.profile(size), "device.feature_missing");
  await draw(engine);
  await engine.close();
  await failure(engine.profile(size), "engine.closed");
});
