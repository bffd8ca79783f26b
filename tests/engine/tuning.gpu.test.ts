// Tuning on a device: problems come from the plan, and a variant that is wrong, does not compile or takes the device with
// it is excluded and told, never chosen. Variants with such faults are put beside an operation's own.

import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import { openDevice } from "../../src/engine/gpu/device.js";
import { attentionProblem } from "../../src/engine/ops/attention.js";
import { convolutionProblem } from "../../src/engine/ops/conv2d.js";
import { matmulProblem } from "../../src/engine/ops/matmul.js";
import { type Problem, type Variant, variantName } from "../../src/engine/ops/variants.js";
import type { ProgressEvent } from "../../src/engine/request.js";
import { posedProblems, type TuneProblemsOptions, tuneKernels, tuneProblems } from "../../src/engine/tuning.js";
import { testDevice } from "../gpu.js";
import { failure } from "../weights/fixtures.js";
import { tinySource } from "./checkpoints.js";
import { openTiny, testGpu } from "./open.js";

const product = { rows: 200, k: 96, cols: 72, a: "f32", weight: "bf16", isNarrow: false, isGated: false } as const;
const matmul = matmulProblem(product);
const portable: Variant = { stem: "matmul", tunables: {}, tileRows: 64, tileCols: 64 };

async function reopen() {
  return openDevice({ gpu: await testGpu() });
}

/** Tunes one problem on a device of its own. */
async function tuneOne(problem: Problem, options: Partial<TuneProblemsOptions> = {}) {
  const device = await reopen();
  try {
    const tuned = await tuneProblems([problem], device, { seconds: 60, reopen, ...options });
    return tuned[problem.name]!;
  } finally {
    device.close();
  }
}

/** A problem with these variants, and one more that they are checked against: `sound` under the name "reference". */
function among(problem: Problem, sound: Variant, ...variants: Variant[]): Problem {
  const reference: Variant = { ...sound, stem: "reference" };
  return {
    ...problem,
    portable: reference.stem,
    variants: () => [...variants, reference],
    sample: (recorder, inputs, units, variant) =>
      problem.sample(recorder, inputs, units, variant === reference ? sound : variant),
  };
}

describe("variants", () => {
  it.each<[string, Problem]>([
    ["a product", matmul],
    ["a gated product", matmulProblem({ ...product, isGated: true, weight: "f32" })],
    ["a product of f16", matmulProblem({ ...product, a: "f16", weight: "f16", isNarrow: true, k: 90 })],
    ["a convolution", convolutionProblem({ pixels: 900, inputs: 12, outputs: 24, weight: "bf16" })],
    ["attention", attentionProblem({ tokens: 70, heads: 3, headSize: 24, dtype: "f16" })],
  ])("of %s compute the same", async (_, problem) => {
    const choice = await tuneOne(problem);
    const { device } = await testDevice();
    expect(choice.candidates.map(({ variant }) => variant)).toEqual(problem.variants(device).map(variantName));
    for (const { error } of choice.candidates) expect(error).toBeUndefined();
    if (choice.candidates.length > 1) expect(choice.ms).toBeGreaterThan(0);
  });

  it("that are faster are chosen", async () => {
    const slow: Variant = { ...portable, stem: "slow" };
    const large: Problem = {
      ...{ ...matmul, units: 2000, flops: 10 * matmul.flops },
      sample: (recorder, inputs, units, variant) => {
        for (let i = 0; i < 5 && variant === slow; i++) matmul.sample(recorder, inputs, units, portable);
        return matmul.sample(recorder, inputs, units, portable);
      },
    };
    const choice = await tuneOne(among(large, portable, slow));
    expect(choice.variant).toBe("reference");
    expect(choice.builtin_ms).toBeGreaterThan(1.5 * choice.ms!);
  });

  const faults: [string, Variant, RegExp][] = [
    // It would be the fastest by far.
    ["leaves rows out", { ...portable, tunables: { WEIGHT_TYPE: 1 }, tileRows: 256 }, /its result is off by NaN/],
    ["reads the weight as another type", { ...portable, tunables: { WEIGHT_TYPE: 2 } }, /its result is off by/],
    ["does not exist", { ...portable, stem: "matmul_quick" }, /there is no kernels\/matmul_quick\.wgsl/],
    ["is another operation's", { ...portable, stem: "copy_columns" }, /copy_columns/],
    ["has a tunable of its own", { ...portable, tunables: { MAGIC: 1 } }, /no tunable MAGIC/],
  ];
  it.each(faults)("one that %s is never chosen, and is told", async (_, variant, message) => {
    const choice = await tuneOne(among(matmul, portable, portable, variant));
    expect(choice.variant).not.toBe(variantName(variant));
    expect(choice.candidates[1]!.error).toMatch(message);
    // Nor if it is the built-in choice.
    const builtin = await tuneOne(among(matmul, portable, variant));
    expect(builtin.variant).toBe("reference");
    expect(builtin.candidates[0]!.error).toMatch(message);
  });

  it("one that the device refuses to compile is excluded, and the device goes on", async () => {
    // The keys of a tile do not fit into workgroup memory.
    const attention = attentionProblem({ tokens: 64, heads: 2, headSize: 64, dtype: "f32" });
    const sound: Variant = { stem: "attention", tunables: { KEYS: 16 }, tileRows: 64, tileCols: 64 };
    const huge: Variant = { ...sound, tunables: { KEYS: 8192 } };
    const device = await reopen();
    const problem = among(attention, sound, huge);
    const tuned = await tuneProblems([problem, matmul], device, { seconds: 60, reopen: () => Promise.reject() });
    expect(tuned[problem.name]).toMatchObject({ variant: "reference KEYS=16", candidates: [{}, {}] });
    expect(tuned[problem.name]!.candidates[0]!.error).toMatch(/workgroup|storage/i);
    expect(device.failure).toBeUndefined();
    device.close();
  });

  it("one that the device is lost to is excluded from all problems, and others are still measured", async () => {
    let losses = 0;
    const deadly: Variant = { ...portable, stem: "deadly" };
    const dangerous = (problem: Problem): Problem => {
      const sample: Problem["sample"] = (recorder, inputs, units, variant) => {
        if (variant !== deadly) return problem.sample(recorder, inputs, units, variant);
        losses += 1;
        recorder.device.gpu.destroy();
        return problem.sample(recorder, inputs, units, portable);
      };
      return among({ ...problem, sample }, portable, deadly, portable);
    };
    const other = matmulProblem({ ...product, cols: 40 });
    const device = await reopen();
    const tuned = await tuneProblems([dangerous(matmul), dangerous(other)], device, { seconds: 60, reopen });
    device.close();
    expect(losses).toBe(1);
    for (const { name } of [matmul, other]) {
      expect(tuned[name]!.candidates[0]!.error).toMatch(/the GPU device was lost/);
      expect(tuned[name]!.variant).not.toBe("deadly");
      expect(tuned[name]!.ms).toBeGreaterThan(0);
    }
  });
});

describe("time", () => {
  it("that is up leaves the built-in choices, which count as known until they are asked for", async () => {
    const problem = among(matmul, portable, portable);
    const choice = await tuneOne(problem, { seconds: 1e-6 });
    expect(choice).toMatchObject({ variant: "matmul", ms: null, builtin_ms: null });
    const known = { [problem.name]: choice };
    expect(await tuneOne(problem, { known })).toEqual(choice);
    expect((await tuneOne(problem, { known, complete: true })).ms).toBeGreaterThan(0);
  });

  it("bounds the whole", async () => {
    const started = performance.now();
    const events: ProgressEvent[] = [];
    const what = {
      gpu: await testGpu(),
      source: tinySource(),
      onProgress: (event: ProgressEvent) => events.push(event),
    };
    const problems = await tuneKernels({ ...what, width: 64, height: 64, seconds: 1 });
    // A kernel that is being compiled, or one run of the slowest, is waited for.
    expect(performance.now() - started).toBeLessThan(15_000);
    const total = Object.keys(problems).length;
    expect(events.map(({ done }) => done)).toEqual(Array.from({ length: total && total + 1 }, (_, i) => i));
    for (const event of events) expect(event).toMatchObject({ stage: "tune", total });
  });

  it("can be cut short", async () => {
    const stop = new AbortController();
    const what = { gpu: await testGpu(), source: tinySource(), width: 64, height: 64 };
    const running = tuneKernels({ ...what, signal: stop.signal, onProgress: () => stop.abort() });
    const { device } = await testDevice();
    const checkpoint = await openCheckpoint(tinySource());
    const shape = { width: 64, height: 64, references: [], isGuided: false, steps: 4 };
    if ((await posedProblems(device, checkpoint, shape, "f32")).length > 0) await failure(running, "request.cancelled");
    else expect(await running).toEqual({});
  });
});

it("problems are those that a picture poses, the most expensive first, and what is chosen for them is taken", async () => {
  const { device } = await testDevice();
  const checkpoint = await openCheckpoint(tinySource());
  const shape = { width: 64, height: 64, references: [], isGuided: false, steps: 4 };
  const problems = await posedProblems(device, checkpoint, shape, "f32");
  expect(new Set(problems.map(({ name }) => name)).size).toBe(problems.length);
  for (const problem of problems) expect(problem.variants(device).length).toBeGreaterThan(1);
  if (device.isSoftware) {
    for (const operation of ["matmul ", "conv2d ", "attention "]) {
      expect(problems.some(({ name }) => name.startsWith(operation))).toBe(true);
    }
  }
  // The counted plan poses what the real one poses: every choice is asked for.
  const tuning = new Map(problems.map((problem) => [problem.name, "none of these"]));
  const asked = new Set<string>();
  tuning.get = (name) => void asked.add(name);
  const engine = await openTiny({ tuning });
  await engine.generate({ prompt: "a red circle", width: 64, height: 64, steps: 1 });
  for (const { name } of problems) expect(asked).toContain(name);
});
