// Damaged weights: a picture of them is an error that names the stage, never a picture. One element of one tensor is
// made NaN or infinite, or a tensor is zeroed or scaled; the checkpoint around it is sound.

import { describe, expect, it } from "vitest";
import type { ErrorCode } from "../../src/errors.js";
import { failure } from "../weights/fixtures.js";
import { type Change, scaled, setBits, tinySource, withTensors, zeroed } from "./checkpoints.js";
import { draw, openTiny, pattern } from "./open.js";

const nan = 0x7fc0;
const infinity = 0x7f80;
const negativeInfinity = 0xff80;

type Case = [tensor: string, what: string, change: Change, code: ErrorCode, stage: RegExp];

async function refusal(tensors: Record<string, Change>, code: ErrorCode) {
  const engine = await openTiny({ source: await withTensors(tinySource(), tensors) });
  const stages: string[] = [];
  const references = [pattern(64, 64)];
  const drawn = draw(engine, {
    references,
    steps: 2,
    onProgress: ({ stage, done }) => stages.push(`${stage} ${done}`),
  });
  const error = await failure(drawn, code);
  // The same again: nothing of the failed request is taken for good.
  await failure(draw(engine, { references, steps: 2 }), code);
  return { message: error.message, last: stages.at(-1) };
}

const textEncoder = /^the text encoder gave/;
const transformer = /^the transformer in step 1 of 2 gave/;
const decoder = /^the VAE's decoder gave/;
const encoder = /^the VAE's encoder of reference 1 gave/;
const cases: Case[] = [
  ["text_encoder/model.layers.0.mlp.down_proj.weight", "NaN", setBits(100, nan), "numerics.non_finite", textEncoder],
  [
    "text_encoder/model.layers.26.self_attn.q_proj.weight",
    "∞",
    setBits(5, infinity),
    "numerics.non_finite",
    textEncoder,
  ],
  ["text_encoder/model.layers.8.input_layernorm.weight", "NaN", setBits(3, nan), "numerics.non_finite", textEncoder],
  ["transformer/x_embedder.weight", "NaN", setBits(0, nan), "numerics.non_finite", transformer],
  [
    "transformer/single_transformer_blocks.3.attn.norm_q.weight",
    "NaN",
    setBits(31, nan),
    "numerics.non_finite",
    transformer,
  ],
  [
    "transformer/single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight",
    "−∞",
    setBits(9, negativeInfinity),
    "numerics.non_finite",
    transformer,
  ],
  ["transformer/proj_out.weight", "∞", setBits(77, infinity), "numerics.non_finite", transformer],
  ["vae/decoder.conv_in.weight", "NaN", setBits(1, nan), "numerics.non_finite", decoder],
  ["vae/decoder.conv_out.bias", "∞", setBits(2, infinity), "numerics.non_finite", decoder],
  ["vae/encoder.conv_in.weight", "NaN", setBits(0, nan), "numerics.non_finite", encoder],
  ["vae/encoder.conv_out.weight", "∞", setBits(10, infinity), "numerics.non_finite", encoder],
  ["transformer/proj_out.weight", "zero", zeroed, "numerics.collapsed", transformer],
  ["transformer/proj_out.weight", "2³⁰ times as large", scaled(30), "numerics.exploded", transformer],
  ["vae/decoder.conv_out.weight", "2⁴⁰ times as large", scaled(40), "numerics.exploded", decoder],
  ["vae/encoder.conv_out.weight", "2⁴⁰ times as large", scaled(40), "numerics.exploded", encoder],
];

describe("no picture comes of", () => {
  it.each(cases)("%s with %s", async (tensor, _, change, code, stage) => {
    const { message, last } = await refusal({ [tensor]: change }, code);
    expect(message).toMatch(stage);
    const before =
      stage === textEncoder
        ? "prompt 0"
        : stage === encoder
          ? "references 0"
          : stage === transformer
            ? "denoise 0"
            : "decode 0";
    expect(last).toBe(before);
  });

  it("a text encoder of zeros", async () => {
    // Norms alone are kept: everything they multiply is zero, so is the residual stream.
    const tensors: Record<string, Change> = { "text_encoder/model.embed_tokens.weight": zeroed };
    const { message } = await refusal(tensors, "numerics.collapsed");
    expect(message).toMatch(textEncoder);
  });

  it("a decoder whose last layer is zeros", async () => {
    const tensors = { "vae/decoder.conv_out.weight": zeroed, "vae/decoder.conv_out.bias": zeroed };
    const { message } = await refusal(tensors, "numerics.collapsed");
    expect(message).toMatch(decoder);
  });
});

it("a sound checkpoint passes through the same overlay", async () => {
  const source = await withTensors(tinySource(), { "vae/decoder.conv_out.bias": () => undefined });
  await expect(draw(await openTiny({ source }), { references: [pattern(64, 64)] })).resolves.toBeDefined();
});
