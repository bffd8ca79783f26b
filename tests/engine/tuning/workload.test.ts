// Which workloads of a picture are measured, and in which order. Needs no device.

import { expect, it } from "vitest";
import { ordinaryGpu } from "../../../src/engine/gpu/facts.js";
import { matmulWorkload } from "../../../src/engine/ops/matmul.js";
import { workloadTally } from "../../../src/engine/tuning/workload.js";

const product = (rows: number, cols = 64) =>
  matmulWorkload({ rows, k: 64, cols, a: "f32", weight: "bf16", operands: "f32", isGated: false });

it("workloads come by their FLOPs in all runs, the largest for those that share a name and variants", () => {
  const tally = workloadTally(ordinaryGpu);
  const [once, often, larger] = [product(1000, 128), product(600), product(900)];
  expect(larger.name).toBe(often.name);
  tally.add(once, 1);
  expect(tally.ranked()).toEqual([once]);
  tally.add(often, 2);
  tally.add(larger, 2);
  tally.add(often, 1);
  expect(tally.ranked()).toEqual([larger, once]);
});

it("a workload that one kernel alone computes is left out", () => {
  const tally = workloadTally(ordinaryGpu);
  const only = { ...product(100), variants: () => product(100).variants(ordinaryGpu).slice(0, 1) };
  tally.add(only, 1);
  expect(tally.ranked()).toEqual([]);
});
