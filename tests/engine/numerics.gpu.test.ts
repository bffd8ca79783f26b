// Damaged weights: a picture of them is an error that names the stage, never a picture. A tensor is changed to where its
// stage gives nothing, scaled, or made so large that sums overflow (NaN, infinities and matrices of zeros would be refused
// with the file); the checkpoint around it is sound.

import { describe, expect, it } from "vitest";
import type { GenerateRequest, ProgressEvent } from "../../src/engine/request.js";
import type { ErrorCode } from "../../src/errors.js";
import { type Change, enormous, scaled, tinySource, withTensors, zeroed } from "./checkpoints.js";
import { draw, openTiny, pattern } from "./open.js";
import { failure } from "./weights/fixtures.js";

type Stage = [message: RegExp, last: string];
type Case = [tensor: string, what: string, change: Change, code: ErrorCode, stage: Stage];

/** The error of a request on a damaged checkpoint, and the last progress event before it. */
async function refusal(tensors: Record<string, Change>, code: ErrorCode, request: Partial<GenerateRequest> = {}) {
  const engine = await openTiny({ source: await withTensors(tinySource(), tensors) });
  const events: string[] = [];
  const onProgress = ({ stage, done }: ProgressEvent) => events.push(`${stage} ${done}`);
  const error = await failure(draw(engine, { ...request, steps: 2, onProgress }), code);
  return { message: error.message, last: events.at(-1) };
}

/** How the message begins, and the event after which the stage fails. */
const textEncoder: Stage = [/^the text encoder gave/, "prompt 0"];
const transformer: Stage = [/^the transformer in step 1 of 2 gave/, "denoise 0"];
const decoder: Stage = [/^the VAE's decoder gave/, "decode 0"];
const encoder: Stage = [/^the VAE's encoder of reference 1 gave/, "references 0"];
const cases: Case[] = [
  ["text_encoder/model.layers.0.mlp.down_proj.weight", "enormous values", enormous, "numerics.non_finite", textEncoder],
  [
    "text_encoder/model.layers.26.self_attn.q_proj.weight",
    "enormous values",
    enormous,
    "numerics.non_finite",
    textEncoder,
  ],
  [
    "text_encoder/model.layers.8.input_layernorm.weight",
    "enormous values",
    enormous,
    "numerics.non_finite",
    textEncoder,
  ],
  ["transformer/x_embedder.weight", "enormous values", enormous, "numerics.non_finite", transformer],
  [
    "transformer/single_transformer_blocks.3.attn.norm_q.weight",
    "enormous values",
    enormous,
    "numerics.non_finite",
    transformer,
  ],
  [
    "transformer/single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight",
    "enormous values",
    enormous,
    "numerics.non_finite",
    transformer,
  ],
  ["transformer/proj_out.weight", "enormous values", enormous, "numerics.non_finite", transformer],
  ["vae/decoder.conv_in.weight", "enormous values", enormous, "numerics.non_finite", decoder],
  ["vae/decoder.conv_out.bias", "enormous values", enormous, "numerics.exploded", decoder],
  ["vae/encoder.conv_in.weight", "enormous values", enormous, "numerics.non_finite", encoder],
  ["vae/encoder.conv_out.weight", "enormous values", enormous, "numerics.non_finite", encoder],
  ["transformer/proj_out.weight", "2³⁰ times as large", scaled(30), "numerics.exploded", transformer],
  ["vae/decoder.conv_out.weight", "2⁴⁰ times as large", scaled(40), "numerics.exploded", decoder],
  ["vae/encoder.conv_out.weight", "2⁴⁰ times as large", scaled(40), "numerics.exploded", encoder],
];

describe("no picture comes of", () => {
  it.each(cases)("%s with %s", async (tensor, _, change, code, stage) => {
    const request = stage === encoder ? { references: [pattern(64, 64)] } : {};
    const { message, last } = await refusal({ [tensor]: change }, code, request);
    expect(message).toMatch(stage[0]);
    expect(last).toBe(stage[1]);
  });

  it("a text encoder of zeros", async () => {
    // Nothing in Qwen3 has a bias: without embeddings the residual stream stays zero. Token 0 is none of the prompt's.
    const butOne: Change = (bytes) => {
      bytes.fill(0);
      bytes[1] = 0x3c;
    };
    const { message } = await refusal({ "text_encoder/model.embed_tokens.weight": butOne }, "numerics.collapsed");
    expect(message).toMatch(textEncoder[0]);
  });

  it("a transformer whose outputs are all the same", async () => {
    const same: Change = (bytes) => void bytes.fill(0x3c);
    const oneToken = { width: 16, height: 16 };
    const { message } = await refusal({ "transformer/proj_out.weight": same }, "numerics.collapsed", oneToken);
    expect(message).toMatch(transformer[0]);
  });

  it("a decoder whose last norm gives zeros", async () => {
    const names = ["conv_norm_out.weight", "conv_norm_out.bias", "conv_out.bias"];
    const tensors = Object.fromEntries(names.map((name) => [`vae/decoder.${name}`, zeroed]));
    const { message } = await refusal(tensors, "numerics.collapsed");
    expect(message).toMatch(decoder[0]);
  });
});

it("a request that failed so is not taken for good when it comes again", async () => {
  const source = await withTensors(tinySource(), { "text_encoder/model.layers.8.mlp.up_proj.weight": enormous });
  const engine = await openTiny({ source });
  for (let i = 0; i < 2; i++) await failure(draw(engine), "numerics.non_finite");
});

it("a sound checkpoint passes through the same overlay", async () => {
  const source = await withTensors(tinySource(), { "vae/decoder.conv_out.bias": () => undefined });
  await expect(draw(await openTiny({ source }), { references: [pattern(64, 64)] })).resolves.toBeDefined();
});
