// One trace with every kernel that is not the built-in choice on this device: tuning may choose any of them.
// Each engine takes the next variant of every operation, those with fewer variants their last one.

import { afterEach, expect, it } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import type { Engine } from "../../src/engine/engine.js";
import { openDevice } from "../../src/engine/gpu/device.js";
import type { Workload } from "../../src/engine/ops/variants.js";
import { variantName } from "../../src/engine/ops/variants.js";
import { createGpu } from "../../src/node/dawn.js";
import { posedWorkloads } from "../engine/posed-workloads.js";
import { listTraces, traceCheckpoint } from "./catalog.js";
import { compareTrace, failures, openTestEngine } from "./run.js";

const traceName = "detail-96x64";

let engine: Engine | undefined;
afterEach(async () => {
  await engine?.close();
  engine = undefined;
});

it.each(["f32", "f16"] as const)("%s", async (precision) => {
  const trace = listTraces().find(({ name }) => name === traceName);
  // DAYBREAK_TRACE_FILTER may leave it out.
  if (!trace) return expect(process.env.DAYBREAK_TRACE_FILTER).toBeTruthy();
  const source = await traceCheckpoint(trace.checkpoint);
  const device = await openDevice({ gpu: await createGpu() });
  const shape = { width: 96, height: 64, references: [], isGuided: false };
  const workloads = posedWorkloads(device, await openCheckpoint(source), shape, precision);
  const namesOf = (workload: Workload) => workload.variants(device).map(variantName);
  const most = Math.max(1, ...workloads.map((workload) => namesOf(workload).length));
  const tunings = Array.from({ length: most - 1 }, (_, i) => {
    return new Map(workloads.map((workload) => [workload.name, namesOf(workload).slice(0, i + 2).at(-1) as string]));
  });
  device.close();
  expect(tunings.length > 0 || !device.isSoftware).toBe(true);
  for (const tuning of tunings) {
    engine = await openTestEngine(source, { precision, tuning });
    const result = await compareTrace(engine, trace.path);
    expect(result.tensors.length).toBeGreaterThan(0);
    expect(failures(result, precision), [...tuning.values()].join(", ")).toEqual([]);
    await engine.close();
    engine = undefined;
  }
}, 600_000);
