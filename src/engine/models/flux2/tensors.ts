// Which stored tensors make up which weight of FLUX.2's transformer and VAE: one table per component, computed from its
// config. Spells diffusers' names. Knows no bytes and no device. Rows of several tensors are stacked where one matmul then
// does what the file keeps apart.

import { type SlotBuilder, type SlotTable, slotBuilder } from "../../weights/slots.js";
import type { TransformerConfig } from "./transformer-config.js";
import type { VaeConfig } from "./vae-config.js";

/**
 * Slots of Flux2Transformer2DModel, with D = hiddenSize, F = mlpHiddenSize. All are matrices [out, in] without bias but
 * the norms of q and k, vectors [head size].
 * `double.{i}.{img|txt}.{qkv, norm_q, norm_k, proj, mlp_in, mlp_out}`, `single.{i}.{qkv_mlp, norm_q, norm_k, out}`;
 * `mlp_in` is gate | up, `qkv_mlp` is q | k | v | gate | up, as stored.
 */
export function transformerTable(config: TransformerConfig): SlotTable {
  const { hiddenSize: D, mlpHiddenSize: F } = config;
  const doubles = Array.from({ length: config.numLayers }, (_, i) => `double.${i}`);
  const singles = Array.from({ length: config.numSingleLayers }, (_, i) => `single.${i}`);
  const builder = slotBuilder(
    { name: "transformer", usedPer: "step", folder: "transformer", stem: "diffusion_pytorch_model" },
    [["mod"], [...doubles, ...singles]],
  );
  const matrix = (slot: string, module: string, rows: number, cols: number) =>
    builder.add("matrix", slot, `${module}.weight`, [rows, cols]);

  matrix("x_embedder", "x_embedder", D, config.inChannels);
  matrix("context_embedder", "context_embedder", D, config.jointAttentionDim);
  matrix("time.linear_1", "time_guidance_embed.timestep_embedder.linear_1", D, config.timestepGuidanceChannels);
  matrix("time.linear_2", "time_guidance_embed.timestep_embedder.linear_2", D, D);
  matrix("mod.img", "double_stream_modulation_img.linear", 6 * D, D);
  matrix("mod.txt", "double_stream_modulation_txt.linear", 6 * D, D);
  matrix("mod.single", "single_stream_modulation.linear", 3 * D, D);
  for (let i = 0; i < config.numLayers; i++) {
    for (const stream of ["img", "txt"] as const) doubleBlock(builder, i, stream, config);
  }
  for (let i = 0; i < config.numSingleLayers; i++) {
    const module = `single_transformer_blocks.${i}.attn`;
    matrix(`single.${i}.qkv_mlp`, `${module}.to_qkv_mlp_proj`, 3 * D + 2 * F, D);
    builder.add("vector", `single.${i}.norm_q`, `${module}.norm_q.weight`, [config.attentionHeadDim]);
    builder.add("vector", `single.${i}.norm_k`, `${module}.norm_k.weight`, [config.attentionHeadDim]);
    matrix(`single.${i}.out`, `${module}.to_out`, D, D + F);
  }
  // diffusers stores this modulation as (scale, shift), BFL as (shift, scale).
  matrix("norm_out", "norm_out.linear", 2 * D, D);
  matrix("proj_out", "proj_out", config.outChannels, D);
  return builder.table;
}

/** diffusers' names of the two streams' modules in a double block. */
const doubleBlockNames = {
  img: { qkv: ["to_q", "to_k", "to_v"], normQ: "norm_q", normK: "norm_k", proj: "to_out.0", mlp: "ff" },
  txt: {
    qkv: ["add_q_proj", "add_k_proj", "add_v_proj"],
    normQ: "norm_added_q",
    normK: "norm_added_k",
    proj: "to_add_out",
    mlp: "ff_context",
  },
} as const;

function doubleBlock(builder: SlotBuilder, i: number, stream: "img" | "txt", config: TransformerConfig): void {
  const { hiddenSize: D, mlpHiddenSize: F, attentionHeadDim } = config;
  const names = doubleBlockNames[stream];
  const block = `transformer_blocks.${i}`;
  const slot = `double.${i}.${stream}`;
  const qkv = names.qkv.map((name) => [`${block}.attn.${name}.weight`, D] as const);
  builder.stack("matrix", `${slot}.qkv`, qkv, [D]);
  builder.add("vector", `${slot}.norm_q`, `${block}.attn.${names.normQ}.weight`, [attentionHeadDim]);
  builder.add("vector", `${slot}.norm_k`, `${block}.attn.${names.normK}.weight`, [attentionHeadDim]);
  builder.add("matrix", `${slot}.proj`, `${block}.attn.${names.proj}.weight`, [D, D]);
  builder.add("matrix", `${slot}.mlp_in`, `${block}.${names.mlp}.linear_in.weight`, [2 * F, D]);
  builder.add("matrix", `${slot}.mlp_out`, `${block}.${names.mlp}.linear_out.weight`, [D, F]);
}

/**
 * Slots of AutoencoderKLFlux2 under diffusers' own module paths: `X.weight` (conv, matrix or vector) and `X.bias`
 * (vector). The attention's to_q, to_k, to_v are stacked as `….attentions.0.qkv.weight` and `.bias`; the latents'
 * statistics are `bn.mean` and `bn.var`, [4 · latentChannels].
 */
export function vaeTable(config: VaeConfig): SlotTable {
  const builder = slotBuilder({ name: "vae", usedPer: "picture", folder: "vae", stem: "diffusion_pytorch_model" });
  vaeEncoder(builder, config);
  vaeDecoder(builder, config);
  const { latentChannels } = config;
  if (config.useQuantConv) conv(builder, "quant_conv", 2 * latentChannels, 2 * latentChannels, 1);
  if (config.usePostQuantConv) conv(builder, "post_quant_conv", latentChannels, latentChannels, 1);
  builder.add("vector", "bn.mean", "bn.running_mean", [4 * latentChannels]);
  builder.add("vector", "bn.var", "bn.running_var", [4 * latentChannels]);
  builder.skip("bn.num_batches_tracked", []);
  return builder.table;
}

function vaeEncoder(builder: SlotBuilder, config: VaeConfig): void {
  const widths = config.blockOutChannels;
  let channels = widths[0]!;
  conv(builder, "encoder.conv_in", channels, config.inChannels, 3);
  for (const [level, width] of widths.entries()) {
    const block = `encoder.down_blocks.${level}`;
    for (let j = 0; j < config.layersPerBlock; j++) {
      resnet(builder, `${block}.resnets.${j}`, channels, width);
      channels = width;
    }
    if (level < widths.length - 1) conv(builder, `${block}.downsamplers.0.conv`, width, width, 3);
  }
  midBlock(builder, "encoder.mid_block", channels, config);
  norm(builder, "encoder.conv_norm_out", channels);
  conv(builder, "encoder.conv_out", 2 * config.latentChannels, channels, 3); // mean and log variance
}

function vaeDecoder(builder: SlotBuilder, config: VaeConfig): void {
  const widths = [...config.decoderBlockOutChannels].reverse(); // from the latents up
  let channels = widths[0]!;
  conv(builder, "decoder.conv_in", channels, config.latentChannels, 3);
  midBlock(builder, "decoder.mid_block", channels, config);
  for (const [level, width] of widths.entries()) {
    const block = `decoder.up_blocks.${level}`;
    for (let j = 0; j < config.layersPerBlock + 1; j++) {
      resnet(builder, `${block}.resnets.${j}`, channels, width);
      channels = width;
    }
    if (level < widths.length - 1) conv(builder, `${block}.upsamplers.0.conv`, width, width, 3);
  }
  norm(builder, "decoder.conv_norm_out", channels);
  conv(builder, "decoder.conv_out", config.outChannels, channels, 3);
}

function conv(builder: SlotBuilder, module: string, outputs: number, inputs: number, side: number): void {
  builder.add("conv", `${module}.weight`, `${module}.weight`, [outputs, inputs, side, side]);
  builder.add("vector", `${module}.bias`, `${module}.bias`, [outputs]);
}

function norm(builder: SlotBuilder, module: string, channels: number): void {
  builder.add("vector", `${module}.weight`, `${module}.weight`, [channels]);
  builder.add("vector", `${module}.bias`, `${module}.bias`, [channels]);
}

/** The shortcut exists only where the widths differ. */
function resnet(builder: SlotBuilder, module: string, inputs: number, outputs: number): void {
  norm(builder, `${module}.norm1`, inputs);
  conv(builder, `${module}.conv1`, outputs, inputs, 3);
  norm(builder, `${module}.norm2`, outputs);
  conv(builder, `${module}.conv2`, outputs, outputs, 3);
  if (inputs !== outputs) conv(builder, `${module}.conv_shortcut`, outputs, inputs, 1);
}

function midBlock(builder: SlotBuilder, module: string, channels: number, config: VaeConfig): void {
  resnet(builder, `${module}.resnets.0`, channels, channels);
  resnet(builder, `${module}.resnets.1`, channels, channels);
  if (!config.midBlockAddAttention) return;
  const attention = `${module}.attentions.0`;
  const stacked = (suffix: string) =>
    ["to_q", "to_k", "to_v"].map((name) => [`${attention}.${name}.${suffix}`, channels] as const);
  norm(builder, `${attention}.group_norm`, channels);
  builder.stack("matrix", `${attention}.qkv.weight`, stacked("weight"), [channels]);
  builder.stack("vector", `${attention}.qkv.bias`, stacked("bias"), []);
  builder.add("matrix", `${attention}.to_out.0.weight`, `${attention}.to_out.0.weight`, [channels, channels]);
  builder.add("vector", `${attention}.to_out.0.bias`, `${attention}.to_out.0.bias`, [channels]);
}
