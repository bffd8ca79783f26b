// What a picture poses: every kernel once, the built-in choices as the picture's recording makes them, and all variants.

import { expect, test } from "vitest";
import { posedKernels, settingsOf } from "../../../bench/shaders/posed.js";
import { syntheticModel, syntheticSource } from "../../../bench/synthetic.js";
import { openCheckpoint } from "../../../src/engine/checkpoint.js";
import { type DeviceFacts, ordinaryGpu } from "../../../src/engine/gpu/facts.js";
import { planMemory } from "../../../src/engine/memory.js";

const shape = { width: 64, height: 64, references: [], isGuided: false };
const withMatrices: DeviceFacts = {
  ...ordinaryGpu,
  features: new Set(["shader-f16", "subgroups", "subgroup-size-control"]),
  limits: { ...ordinaryGpu.limits, matrixRows: 16 },
  matrixConfigs: [{ M: 16, N: 16, K: 16, componentType: "f16", resultComponentType: "f32" }],
  ...{ subgroupSize: 32, subgroupMinSize: 32, subgroupMaxSize: 32, workgroupBytes: 65536, workgroupInvocations: 1024 },
};

async function checkpointOf(name: string) {
  const source = await syntheticSource(syntheticModel(name));
  try {
    return await openCheckpoint(source);
  } finally {
    await source.close();
  }
}

test("the built-in choices are what the picture dispatches", async () => {
  const checkpoint = await checkpointOf("tiny");
  const posed = posedKernels(ordinaryGpu, checkpoint, shape, ["f32"]);
  const dispatched = new Set<object>();
  planMemory(checkpoint, shape, { operands: "f32", onDispatch: ({ kernel }) => dispatched.add(kernel) });
  expect(new Set(posed.filter(({ builtIn }) => builtIn).map(({ kernel }) => kernel))).toEqual(dispatched);
  expect(new Set(posed.map(({ kernel }) => kernel)).size).toBe(posed.length);
  const tiles = posed.filter(({ kernel }) => kernel.layout.stem === "matmul");
  const isOf = (tile: string) => tiles.filter(({ kernel }) => settingsOf(kernel).includes(tile));
  expect(isOf("ROWS=4 COLS=4").some(({ builtIn }) => builtIn)).toBe(true);
  expect(isOf("ROWS=2 COLS=4").length).toBeGreaterThan(0);
  expect(isOf("ROWS=8 COLS=8").every(({ builtIn }) => !builtIn)).toBe(true);
  expect(posed.find(({ kernel }) => kernel.layout.stem === "silu")?.case).toBe("silu");
  expect(tiles[0]?.case).toMatch(/^matmul \d+×\d+×\d+ f32×bf16/);
});

test("matrices are posed where the device has them", async () => {
  const checkpoint = await checkpointOf("tiny");
  const stemsOn = (facts: DeviceFacts) =>
    new Set(posedKernels(facts, checkpoint, shape, ["f16"]).map(({ kernel }) => kernel.layout.stem));
  expect(stemsOn(withMatrices)).toContain("matmul_subgroup_matrix");
  expect(stemsOn(ordinaryGpu)).not.toContain("matmul_subgroup_matrix");
});
