// Synthetic weights on the device: what they look like, and the picture that an engine draws with them.

import { beforeAll, describe, expect, test } from "vitest";
import { benchGenerate, planGenerate } from "../../bench/generate.js";
import { syntheticModels, syntheticSource, syntheticWeights } from "../../bench/synthetic.js";
import { type Checkpoint, loadCheckpoint, openCheckpoint } from "../../src/engine/checkpoint.js";
import { Engine } from "../../src/engine/engine.js";
import type { Storage } from "../../src/engine/gpu/tensor.js";
import { createGpu } from "../../src/node/dawn.js";
import { buildProgram, daybreak, expectFailure } from "../cli/program.js";
import { failure } from "../engine/weights/fixtures.js";
import { testDevice } from "../gpu.js";
import { temporaryFolder } from "../setup/temporary-folder.js";

/** Loads the tiny checkpoint onto the shared device for `use`. */
async function loaded<T>(seed: number, use: (checkpoint: Checkpoint) => Promise<T>): Promise<T> {
  const { device } = await testDevice();
  const source = await syntheticSource(syntheticModels.tiny);
  const checkpoint = await loadCheckpoint(device, await openCheckpoint(source), {
    fillWeights: syntheticWeights(seed),
  });
  try {
    return await use(checkpoint);
  } finally {
    checkpoint.close();
    await source.close();
  }
}

/** Mean and deviation of a buffer's elements that are not padding, and its bytes. */
async function statistics({ storage }: { storage: Storage }, dtype: string) {
  const buffer = storage.buffer as GPUBuffer;
  const { readback } = await testDevice();
  const bytes = await readback.bytes(buffer, 0, buffer.size);
  const halves = new Uint16Array(bytes.buffer);
  const all =
    dtype === "bf16"
      ? new Float32Array(Uint32Array.from(halves, (bits) => bits << 16).buffer)
      : new Float32Array(bytes.buffer);
  const values = all.filter((value) => value !== 0);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
  return { mean, deviation, bytes };
}

test("weights keep the variance of what goes through them; branches add little; norms are about 1", async () => {
  const { device } = await testDevice();
  const before = device.allocatedBytes;
  await loaded(1, async ({ weights }) => {
    const [textEncoder, transformer, vae] = [weights.textEncoder!, weights.transformer!, weights.vae!];
    const matrix = (set: typeof vae, slot: string) => statistics(set.matrix(slot), set.matrix(slot).dtype);
    const qkv = await matrix(transformer, "double.0.img.qkv");
    expect(qkv.mean).toBeCloseTo(0, 2);
    expect(qkv.deviation * Math.sqrt(128)).toBeCloseTo(1, 1);
    const down = await matrix(textEncoder, "layer.26.down"); // one of 54 branches
    expect(down.deviation * Math.sqrt(160 * 54)).toBeCloseTo(1, 1);
    const conv = vae.conv("decoder.conv_in.weight");
    expect((await statistics(conv, conv.dtype)).deviation * Math.sqrt(8 * 9)).toBeCloseTo(1, 1);
    const norm = await statistics(textEncoder.vector("layer.0.input_norm"), "f32");
    expect(norm.mean).toBeCloseTo(1, 1);
    expect((await statistics(vae.vector("bn.var"), "f32")).mean).toBeGreaterThan(2);
  });
  expect(device.allocatedBytes).toBe(before);
});

test("equal seeds give equal weights, other seeds and other layers others", async () => {
  const bytesOf = (seed: number, slot: string) =>
    loaded(seed, async ({ weights }) => (await statistics(weights.transformer!.matrix(slot), "bf16")).bytes);
  const first = await bytesOf(1, "single.0.out");
  expect(Buffer.compare(await bytesOf(1, "single.0.out"), first)).toBe(0);
  expect(Buffer.compare(await bytesOf(2, "single.0.out"), first)).not.toBe(0);
  expect(Buffer.compare(await bytesOf(1, "single.1.out"), first)).not.toBe(0);
});

test.each(["f32", "f16"] as const)("an engine draws with them in %s, the same picture again", async (precision) => {
  const draw = async () => {
    const source = await syntheticSource(syntheticModels.tiny);
    const engine = await Engine.open({ gpu: await createGpu(), source, precision, fillWeights: syntheticWeights(1) });
    try {
      const { images } = await engine.generate({ prompt: "a red circle", width: 64, height: 64, steps: 2, seed: 7n });
      return images[0]!.data;
    } finally {
      await engine.close();
      await source.close();
    }
  };
  const picture = await draw();
  expect(picture.length).toBe(64 * 64 * 3);
  expect(new Set(picture).size).toBeGreaterThan(50);
  expect(Buffer.compare(await draw(), picture)).toBe(0);
});

const small = { model: "tiny", isSynthetic: true, width: 32, height: 32, precision: "f32" } as const;

test("the benchmark takes what was planned", async () => {
  const { memory, warm, case: measured } = await benchGenerate({ ...small, steps: 1, runs: 1, kernels: false });
  expect(measured).toMatchObject({ model: "synthetic tiny", width: 32, height: 32, precision: "f32" });
  expect(memory.planned).toEqual((await planGenerate(small)).planned);
  expect(Math.abs(memory.peakBytes / memory.planned.totalBytes - 1)).toBeLessThan(0.01);
  expect(warm.total_ms.min).toBeGreaterThan(0);
});

test("the kernels that are timed are those of the engine that was timed", async () => {
  const { totalBytes } = (await planGenerate(small)).planned;
  const memoryBudgetBytes = Math.floor(0.7 * totalBytes);
  const { memory, kernels } = await benchGenerate({ ...small, memoryBudgetBytes, steps: 1, runs: 1, kernels: true });
  expect(memory.planned.residencies).toEqual({ textEncoder: "streamed", transformer: "streamed" });
  expect(new Set(kernels!.map(({ stage }) => stage))).toEqual(
    new Set(["prompt", "context", "modulation of 4 steps", "one step", "decode"]),
  );
  expect(kernels!.reduce((sum, { ms }) => sum + ms, 0)).toBeGreaterThan(0);
});

test("a memory budget is kept, and what cannot be kept is refused", async () => {
  const { totalBytes } = (await planGenerate(small)).planned;
  const budget = { memoryBudgetBytes: Math.floor(0.9 * totalBytes) };
  const { memory } = await benchGenerate({ ...small, ...budget, steps: 1, runs: 1, kernels: false });
  expect(memory.peakBytes).toBeLessThanOrEqual(budget.memoryBudgetBytes);
  expect(memory.planned.residencies.textEncoder).toBe("streamed");
  const nothing = { ...small, steps: 1, runs: 1, kernels: false, memoryBudgetBytes: 1e6 };
  const error = await failure(benchGenerate(nothing), "device.memory_budget_exceeded");
  expect(error.message).toMatch(/takes at least \d+ bytes on the device, the memory budget is 1000000/);
});

describe("from the shell", () => {
  beforeAll(buildProgram);
  const generate = ["bench", "generate", "--synthetic"];

  test("a plan alone, for people and as JSON", () => {
    const { path: cwd } = temporaryFolder();
    const args = [...generate, "flux2-klein-4b", "--plan"];
    expect(daybreak(args, { cwd }).stdout).toMatch(
      /^memory on the device for 1024×1024: 14\.\d GiB = 12\.\d GiB weights/,
    );
    const within = (size: string) => {
      const { stdout } = daybreak([...args, "--memory-budget", size, "--json"], { cwd });
      const { residencies, totalBytes } = JSON.parse(stdout).planned;
      expect(totalBytes).toBeLessThanOrEqual(Number.parseFloat(size) * 1e9);
      return residencies;
    };
    expect(within("9.5GB")).toEqual({ textEncoder: "streamed", transformer: "resident" });
    expect(within("2.5GB")).toEqual({ textEncoder: "streamed", transformer: "streamed" });
    const json = daybreak([...args, "--width", "512", "--height", "256", "--json"], { cwd });
    expect(JSON.parse(json.stdout)).toMatchObject({
      case: { model: "synthetic flux2-klein-4b", width: 512, height: 256, precision: "f32" },
      planned: { weights: { transformer: 7_751_104_512 } },
    });
  });

  test("pictures by stage, with what they took", () => {
    const size = ["--width", "32", "--height", "32", "--steps", "1", "--runs", "1", "--memory-budget", "1GiB"];
    const run = daybreak([...generate, "tiny", ...size], { cwd: temporaryFolder().path });
    expect(run.status, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/^synthetic tiny: 32×32, 1 steps, /m);
    expect(run.stdout).toMatch(/^denoise +[\d.]+ ms/m);
    expect(run.stdout).toMatch(/^memory on the device for 32×32: .*\nallocated at most: [\d.]+ MiB$/m);
  });

  test("what there is not, and what makes no sense", () => {
    const { path: cwd } = temporaryFolder();
    expectFailure(daybreak([...generate, "sdxl"], { cwd }), "request.option_invalid", /flux2-klein-4b/, cwd);
    for (const [args, message] of [
      [[...generate, "tiny", "--model", "x"], /exclude each other/],
      [[...generate, "tiny", "--memory-budget", "much"], /expected a size such as 512MiB/],
      [["bench", "kernels", "--synthetic", "tiny"], /takes no option '--synthetic'/],
    ] as const) {
      const run = daybreak(args, { cwd });
      expect(run.status).toBe(2);
      expect(run.stderr).toMatch(message);
    }
  });
});
