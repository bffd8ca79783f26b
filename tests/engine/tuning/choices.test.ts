// What tuning decides once it has times, and what its results are kept under. Needs no device.

import { describe, expect, it } from "vitest";
import { kernelSources } from "../../../src/engine/gpu/kernel-sources.js";
import { chosen, tuningKey, tuningOf } from "../../../src/engine/tuning/choices.js";
import type { Candidate } from "../../../src/engine/tuning/trials.js";

const timed = (variant: string, ms: number, median_ms = ms): Candidate => ({ variant, ms, median_ms });
const untimed = (variant: string, error?: string): Candidate => ({ variant, ms: null, median_ms: null, error });

describe("the choice", () => {
  it.each<[string, Candidate[], string]>([
    ["the fastest", [timed("built-in", 10), timed("a", 8), timed("b", 5), timed("c", 6)], "b"],
    ["the built-in one, if it is the fastest", [timed("built-in", 5), timed("a", 8)], "built-in"],
    ["the built-in one, if another gains less than 3 %", [timed("built-in", 10), timed("a", 9.71)], "built-in"],
    ["another one that gains 3 %", [timed("built-in", 10), timed("a", 9.7)], "a"],
    ["the built-in one, if it has the better median", [timed("built-in", 10, 11), timed("a", 9, 12)], "built-in"],
    ["no variant with an error", [timed("built-in", 10), { ...timed("a", 1), error: "off" }, timed("b", 9)], "b"],
    ["another one, if the built-in one has an error", [untimed("built-in", "off"), timed("a", 50)], "a"],
    ["one without error, if nothing was timed", [untimed("built-in", "off"), untimed("a")], "a"],
    ["the built-in one, if nothing was timed", [untimed("built-in"), untimed("a")], "built-in"],
    ["the built-in one, if all have errors", [untimed("built-in", "off"), untimed("a", "off")], "built-in"],
  ])("is %s", (_, candidates, variant) => {
    const choice = chosen("workload", candidates);
    expect(choice).toMatchObject({ name: "workload", variant, builtin_ms: candidates[0]!.ms, candidates });
    expect(choice.ms).toBe(candidates.find((candidate) => candidate.variant === variant)!.ms);
    expect(tuningOf({ workload: choice })).toEqual(new Map([["workload", variant]]));
  });
});

describe("the key", () => {
  const info = {
    vendor: "a",
    architecture: "b",
    device: "c",
    description: "d",
    subgroupMinSize: 8,
    subgroupMaxSize: 8,
  };
  const config = (M: number) => ({ M, N: 8, K: 8, componentType: "f16", resultComponentType: "f32" });
  const adapter = (changes: object = {}, features = ["subgroups", "shader-f16"], limits: object = {}) => {
    const shown = { maxBufferSize: 1, maxStorageBufferBindingSize: 2, ...limits };
    const all = { ...info, subgroupMatrixConfigs: [config(8), config(16)], ...changes };
    return { info: all, features: new Set(features), limits: shown } as unknown as GPUAdapter;
  };

  it("is the same for the same, in whatever order it is told", async () => {
    const key = await tuningKey(adapter());
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    expect(await tuningKey(adapter({}, ["shader-f16", "subgroups"]))).toBe(key);
    expect(await tuningKey(adapter({ subgroupMatrixConfigs: [config(16), config(8)] }))).toBe(key);
  });

  it("is another one for another device, driver, version or kernel", async () => {
    const sources = { ...kernelSources, matmul: `${kernelSources.matmul} ` };
    const keys = await Promise.all([
      tuningKey(adapter()),
      ...["vendor", "architecture", "device", "description"].map((name) => tuningKey(adapter({ [name]: "other" }))),
      tuningKey(adapter({ subgroupMinSize: 4 })),
      tuningKey(adapter({ subgroupMatrixConfigs: [config(8)] })),
      tuningKey(adapter({}, ["subgroups"])),
      tuningKey(adapter({}, undefined, { maxBufferSize: 3 })),
      tuningKey(adapter(), ["webgpu 1"]),
      tuningKey(adapter(), ["webgpu 2"]),
      tuningKey(adapter(), [], sources),
    ]);
    expect(new Set(keys).size).toBe(keys.length);
  });
});
