// Which of Dawn's backends is taken on Windows, with adapters that say what drivers there say.

import { expect, it } from "vitest";
import { type Backend, preferMatrixUnits } from "../../src/node/backends.js";

const f16 = { M: 16, N: 16, K: 16, componentType: "f16", resultComponentType: "f32" };
const sums = { ...f16, resultComponentType: "f16" };
const matrixFeatures = ["shader-f16", "subgroups", "subgroup-size-control", "chromium-experimental-subgroup-matrix"];

/** The backends that were made, in order, and the one that was taken; Direct3D 12 is Dawn's own choice. */
async function taken(vulkan: { features: string[]; configs: unknown[]; description?: string } | null) {
  const made: string[] = [];
  const newInstance = (backend?: Backend) => {
    made.push(backend ?? "Dawn's choice");
    const { features = [], configs, description = "GPU" } = vulkan ?? {};
    const info = { description, device: "", architecture: "", subgroupMatrixConfigs: configs };
    const adapter = vulkan && { features: new Set(features), info };
    return { requestAdapter: async () => (backend === "vulkan" ? adapter : {}), backend } as unknown as GPU;
  };
  const gpu = (await preferMatrixUnits(newInstance)) as GPU & { backend?: Backend };
  return { made, backend: gpu.backend ?? "Dawn's choice" };
}

it("Vulkan is taken where a GPU's shaders reach matrix units that kernels use", async () => {
  expect(await taken({ features: matrixFeatures, configs: [sums, f16] })).toEqual({
    made: ["vulkan"],
    backend: "vulkan",
  });
});

it.each<[string, Parameters<typeof taken>[0]]>([
  ["has no driver", null],
  ["has none", { features: ["shader-f16", "subgroups"], configs: [] }],
  ["has them only for sums in f16", { features: matrixFeatures, configs: [sums] }],
  ["has them without shader-f16", { features: matrixFeatures.slice(1), configs: [f16] }],
  ["runs on the processor", { features: matrixFeatures, configs: [f16], description: "llvmpipe (LLVM 19)" }],
])("where Vulkan %s, Dawn chooses", async (_, vulkan) => {
  expect(await taken(vulkan)).toEqual({ made: ["vulkan", "Dawn's choice"], backend: "Dawn's choice" });
});
