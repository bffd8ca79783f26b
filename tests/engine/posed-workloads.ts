// The workloads of a picture, for tests that choose kernels for all of them.

import type { OpenCheckpoint } from "../../src/engine/checkpoint.js";
import type { DeviceFacts } from "../../src/engine/gpu/facts.js";
import { planMemory } from "../../src/engine/memory.js";
import type { Workload } from "../../src/engine/ops/variants.js";
import type { PictureShape } from "../../src/engine/request.js";
import { workloadTally } from "../../src/engine/tuning/workload.js";

/** Those that have several variants on such a device, the most expensive ones of a step first. */
export function posedWorkloads(
  facts: DeviceFacts,
  checkpoint: OpenCheckpoint,
  shape: PictureShape,
  operands: "f32" | "f16",
): Workload[] {
  const tally = workloadTally(facts);
  planMemory(checkpoint, shape, { operands, facts, onWorkload: (workload) => tally.add(workload, 1) });
  return tally.ranked();
}
