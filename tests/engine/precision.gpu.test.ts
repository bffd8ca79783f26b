// Precision: what `auto` means, devices without the optional features, and values that an f16 cannot hold.
// Tiny models never overflow. Here up projections and values are multiplied by a power of two, and the layers after
// them divided by it, which is exact: in f32 every bit of the picture stays, and f16 must give the same picture, too.

import { expect, it } from "vitest";
import type { Precision, TraceTensor } from "../../src/engine/request.js";

import { openTensorFiles } from "../../src/engine/weights/files/tensor-files.js";
import { bounds } from "../golden/run.js";
import { type Change, scaled, tinySource, withTensors } from "./checkpoints.js";
import { draw, openTiny, signalToNoise, testGpu } from "./open.js";
import { spyOn } from "./spied-gpu.js";
import { sameBytes, storedAs, widened } from "./weights/fixtures.js";

/** Sizes of the embedded transformer: width D, MLP width F. */
const [D, F] = [128, 384];
const [doubleBlocks, singleBlocks, textLayers] = [2, 4, 27];

/** Scales columns [begin, end) of a matrix with `cols` columns. */
function scaledColumns(power: number, cols: number, begin: number, end: number): Change {
  return (bytes, dtype) => {
    for (let row = 0; row < bytes.length / 2 / cols; row++)
      scaled(power, row * cols + begin, row * cols + end)(bytes, dtype);
  };
}

/** silu(gate)·up of every MLP grows by 2^power; what reads it takes it back. */
function widerUp(power: number): Record<string, Change> {
  const changes: Record<string, Change> = {};
  for (let i = 0; i < doubleBlocks; i++) {
    for (const mlp of ["ff", "ff_context"]) {
      changes[`transformer/transformer_blocks.${i}.${mlp}.linear_in.weight`] = scaled(power, F * D, 2 * F * D);
      changes[`transformer/transformer_blocks.${i}.${mlp}.linear_out.weight`] = scaled(-power);
    }
  }
  for (let i = 0; i < singleBlocks; i++) {
    const block = `transformer/single_transformer_blocks.${i}.attn`;
    changes[`${block}.to_qkv_mlp_proj.weight`] = scaled(power, (3 * D + F) * D, (3 * D + 2 * F) * D);
    changes[`${block}.to_out.weight`] = scaledColumns(-power, D + F, D, D + F);
  }
  for (let i = 0; i < textLayers; i++) {
    changes[`text_encoder/model.layers.${i}.mlp.up_proj.weight`] = scaled(power);
    changes[`text_encoder/model.layers.${i}.mlp.down_proj.weight`] = scaled(-power);
  }
  return changes;
}

/** The values of every attention grow by 2^power, and with them what attention gives. */
function widerValues(power: number): Record<string, Change> {
  const changes: Record<string, Change> = {};
  for (let i = 0; i < doubleBlocks; i++) {
    const block = `transformer/transformer_blocks.${i}.attn`;
    for (const name of ["to_v", "add_v_proj"]) changes[`${block}.${name}.weight`] = scaled(power);
    for (const name of ["to_out.0", "to_add_out"]) changes[`${block}.${name}.weight`] = scaled(-power);
  }
  for (let i = 0; i < singleBlocks; i++) {
    const block = `transformer/single_transformer_blocks.${i}.attn`;
    changes[`${block}.to_qkv_mlp_proj.weight`] = scaled(power, 2 * D * D, 3 * D * D);
    changes[`${block}.to_out.weight`] = scaledColumns(-power, D + F, 0, D);
  }
  for (let i = 0; i < textLayers; i++) {
    changes[`text_encoder/model.layers.${i}.self_attn.v_proj.weight`] = scaled(power);
    changes[`text_encoder/model.layers.${i}.self_attn.o_proj.weight`] = scaled(-power);
  }
  return changes;
}

let plainPicture: Promise<Uint8Array> | undefined;

/** What the embedded checkpoint draws in f32. */
function plainF32(): Promise<Uint8Array> {
  plainPicture ??= pictureOf("f32");
  return plainPicture;
}

async function pictureOf(precision: Precision, changes: Record<string, Change> = {}): Promise<Uint8Array> {
  const engine = await openTiny({ precision, source: await withTensors(tinySource(), changes) });
  expect(engine.info.precision).toBe(precision);
  return (await draw(engine, { steps: 1 })).data;
}

it.each([
  ["silu(gate)·up", widerUp],
  ["attention's values", widerValues],
])("%s above 65504 gives the f32 picture in f16, too", async (_, wider) => {
  const plain = await plainF32();
  expect(sameBytes(await pictureOf("f32", wider(24)), plain)).toBe(true);
  const f16 = await pictureOf("f16", wider(24));
  expect(sameBytes(f16, plain), "f16 is not f32").toBe(false);
  expect(signalToNoise(f16, plain)).toBeGreaterThan(bounds.f16.psnr);
});

it("the products of the test above exceed what an f16 holds", async () => {
  const engine = await openTiny();
  const traced = new Map<string, Float32Array>();
  const write = (name: string, { data }: TraceTensor) => void traced.set(name, Float32Array.from(data as Float32Array));
  await draw(engine, { trace: { detail: true, write } });
  const files = await openTensorFiles(tinySource(), "transformer", "diffusion_pytorch_model");
  const name = "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight";
  const weight = widened(storedAs("BF16"), await files.read(name, 0, 2 * (3 * D + 2 * F) * D));
  // The first single block's MLP on the first image token: norm, shift and scale, gate and up.
  const x = traced.get(`step.0.double.${doubleBlocks - 1}.img`)!.subarray(0, D);
  const modulation = traced.get("step.0.mod.single")!;
  const mean = x.reduce((sum, value) => sum + value, 0) / D;
  const deviation = Math.sqrt(x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / D + 1e-6);
  const normed = x.map((value, c) => ((value - mean) / deviation) * (1 + modulation[D + c]!) + modulation[c]!);
  const dot = (row: number) => normed.reduce((sum, value, c) => sum + value * weight[row * D + c]!, 0);
  const products = Array.from({ length: F }, (_, f) => {
    const gate = dot(3 * D + f);
    return Math.abs((gate / (1 + Math.exp(-gate))) * dot(3 * D + F + f)) * 2 ** 24;
  });
  expect(Math.max(...products)).toBeGreaterThan(65504);
  const value = Math.max(...Array.from({ length: D }, (_, c) => Math.abs(dot(2 * D + c)) * 2 ** 24));
  expect(value).toBeGreaterThan(65504);
});

it.each([
  [["shader-f16"], "f32"],
  [["shader-f16", "subgroups", "timestamp-query"], "f32"],
  [["shader-f16", "subgroups", "timestamp-query"], "f16"],
] as const)("a device without %s draws the same picture in %s", async (withoutFeatures, precision) => {
  const spy = spyOn(await testGpu(), { adapter: { withoutFeatures: [...withoutFeatures] } });
  const engine = await openTiny({ gpu: spy.gpu, precision });
  for (const feature of withoutFeatures) expect(spy.devices[0]!.device.features.has(feature)).toBe(false);
  const { data } = await draw(engine, { steps: 1 });
  expect(signalToNoise(data, await plainF32())).toBeGreaterThan(bounds[precision].psnr);
});

it.each([
  ["a software device", { description: "llvmpipe (LLVM 15.0.6)" }, [], "f32"],
  ["SwiftShader", { description: "", vendor: "google", architecture: "swiftshader" }, [], "f32"],
  ["a GPU without shader-f16", { description: "Some GPU", architecture: "some" }, ["shader-f16"], "f32"],
  ["a GPU", { description: "Some GPU", architecture: "some" }, [], "f16"],
] as const)("auto means the faster precision of %s", async (_, info, withoutFeatures, expected) => {
  const adapter = { info: { device: "", vendor: "", ...info }, withoutFeatures: [...withoutFeatures] };
  const { gpu } = spyOn(await testGpu(), { adapter });
  const hasF16 = (await (await testGpu()).requestAdapter())!.features.has("shader-f16");
  const engine = await openTiny({ gpu, precision: "auto" });
  // A device that lacks the feature cannot pretend to have it: there the last case is the third.
  expect(engine.info.precision).toBe(hasF16 ? expected : "f32");
});

it("an unknown precision is refused before a device is asked for", async () => {
  const spy = spyOn(await testGpu());
  await expect(openTiny({ gpu: spy.gpu, precision: "bf16" as Precision })).rejects.toMatchObject({
    code: "request.option_invalid",
    message: "got precision bf16, expected auto, f32 or f16",
  });
  expect(spy.devices).toHaveLength(0);
});
