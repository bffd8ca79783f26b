// Tuning for the pictures of a checkpoint: its workloads are those that the engine poses, and it ends when it should.

import { expect, it } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import type { ProgressEvent } from "../../src/engine/request.js";
import { tuneKernels } from "../../src/engine/tune.js";
import { noTime } from "../../src/engine/tuning/choices.js";
import { testDevice } from "../gpu.js";
import { tinySource } from "./checkpoints.js";
import { openTiny, testGpu } from "./open.js";
import { posedWorkloads } from "./posed-workloads.js";
import { spyOn, wrap } from "./spied-gpu.js";
import { failure } from "./weights/fixtures.js";

it("workloads are those that a picture poses, the most expensive first, and what is chosen for them is taken", async () => {
  const { device } = await testDevice();
  const checkpoint = await openCheckpoint(tinySource());
  const shape = { width: 64, height: 64, references: [], isGuided: false };
  const workloads = posedWorkloads(device, checkpoint, shape, "f32");
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

it("the time bounds the whole: what comes after it is not measured", async () => {
  const events: ProgressEvent[] = [];
  const what = {
    gpu: await testGpu(),
    source: tinySource(),
    onProgress: (event: ProgressEvent) => events.push(event),
  };
  const workloads = await tuneKernels({ ...what, width: 64, height: 64, seconds: 1 });
  const total = Object.keys(workloads).length;
  const isMeasured = Object.values(workloads).map(({ unmeasured }) => unmeasured !== noTime);
  expect(isMeasured.lastIndexOf(true)).toBe(isMeasured.filter(Boolean).length - 1);
  // Each takes a quarter of a second at least where nothing is fast, and there are more than four.
  if ((await testDevice()).device.isSoftware) expect(isMeasured.at(-1)).toBe(false);
  expect(events.map(({ done }) => done)).toEqual(Array.from({ length: total && total + 1 }, (_, i) => i));
  for (const event of events) expect(event).toMatchObject({ stage: "tune", total });
});

it("can be cut short", async () => {
  const stop = new AbortController();
  const what = { gpu: await testGpu(), source: tinySource(), width: 64, height: 64 };
  const running = tuneKernels({ ...what, signal: stop.signal, onProgress: () => stop.abort() });
  const { device } = await testDevice();
  const checkpoint = await openCheckpoint(tinySource());
  const shape = { width: 64, height: 64, references: [], isGuided: false };
  if (posedWorkloads(device, checkpoint, shape, "f32").length > 0) await failure(running, "request.cancelled");
  else expect(await running).toEqual({});
});
