// Which stored tensors make up which weight of the engine: one table per component, computed from its config.
// The only place where the spellings of checkpoints (diffusers', transformers') meet the engine's slots. Knows no bytes
// and no device, and of the configs only the sizes named here. Rows of several tensors are stacked where one matmul
// then does what the file keeps apart.

import { type SlotBuilder, type SlotTable, slotBuilder } from "./slots.js";

/** What the transformer's table needs of its config. */
export type TransformerSizes = {
  inChannels: number;
  outChannels: number;
  numLayers: number;
  numSingleLayers: number;
  attentionHeadDim: number;
  hiddenSize: number;
  mlpHiddenSize: number;
  jointAttentionDim: number;
  timestepGuidanceChannels: number;
};

/** What the text encoder's table needs of its config. */
export type TextEncoderSizes = {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  numHiddenLayers: number;
  /** Decoder layers that are run; the file's further ones are known and unused. */
  numLayersNeeded: number;
  numAttentionHeads: number;
  numKeyValueHeads: number;
  headDim: number;
};

/** What the VAE's table needs of its config. */
export type VaeSizes = {
  inChannels: number;
  outChannels: number;
  latentChannels: number;
  blockOutChannels: readonly number[];
  decoderBlockOutChannels: readonly number[];
  layersPerBlock: number;
  midBlockAddAttention: boolean;
  useQuantConv: boolean;
  usePostQuantConv: boolean;
};

/**
 * Slots of Flux2Transformer2DModel, with D = hiddenSize, F = mlpHiddenSize. All are matrices [out, in] without bias but
 * the norms of q and k, vectors [head size].
 * `double.{i}.{img|txt}.{qkv, norm_q, norm_k, proj, mlp_in, mlp_out}`, `single.{i}.{qkv_mlp, norm_q, norm_k, out}`;
 * `mlp_in` is gate | up, `qkv_mlp` is q | k | v | gate | up, as stored.
 */
export function transformerTable(sizes: TransformerSizes): SlotTable {
  const { hiddenSize: D, mlpHiddenSize: F } = sizes;
  const doubles = Array.from({ length: sizes.numLayers }, (_, i) => `double.${i}`);
  const singles = Array.from({ length: sizes.numSingleLayers }, (_, i) => `single.${i}`);
  const builder = slotBuilder("transformer", "diffusion_pytorch_model", [["mod"], [...doubles, ...singles]]);
  const matrix = (slot: string, module: string, rows: number, cols: number) =>
    builder.add("matrix", slot, `${module}.weight`, [rows, cols]);

  matrix("x_embedder", "x_embedder", D, sizes.inChannels);
  matrix("context_embedder", "context_embedder", D, sizes.jointAttentionDim);
  matrix("time.linear_1", "time_guidance_embed.timestep_embedder.linear_1", D, sizes.timestepGuidanceChannels);
  matrix("time.linear_2", "time_guidance_embed.timestep_embedder.linear_2", D, D);
  matrix("mod.img", "double_stream_modulation_img.linear", 6 * D, D);
  matrix("mod.txt", "double_stream_modulation_txt.linear", 6 * D, D);
  matrix("mod.single", "single_stream_modulation.linear", 3 * D, D);
  for (let i = 0; i < sizes.numLayers; i++) {
    for (const stream of ["img", "txt"] as const) doubleBlock(builder, i, stream, sizes);
  }
  for (let i = 0; i < sizes.numSingleLayers; i++) {
    const module = `single_transformer_blocks.${i}.attn`;
    matrix(`single.${i}.qkv_mlp`, `${module}.to_qkv_mlp_proj`, 3 * D + 2 * F, D);
    builder.add("vector", `single.${i}.norm_q`, `${module}.norm_q.weight`, [sizes.attentionHeadDim]);
    builder.add("vector", `single.${i}.norm_k`, `${module}.norm_k.weight`, [sizes.attentionHeadDim]);
    matrix(`single.${i}.out`, `${module}.to_out`, D, D + F);
  }
  // diffusers stores this modulation as (scale, shift), BFL as (shift, scale).
  matrix("norm_out", "norm_out.linear", 2 * D, D);
  matrix("proj_out", "proj_out", sizes.outChannels, D);
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

function doubleBlock(builder: SlotBuilder, i: number, stream: "img" | "txt", sizes: TransformerSizes): void {
  const { hiddenSize: D, mlpHiddenSize: F, attentionHeadDim } = sizes;
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
 * Slots of Qwen3ForCausalLM up to the deepest layer that is run: `embed_tokens` (an embedding), and
 * `layer.{i}.{input_norm, qkv, q_norm, k_norm, o, post_norm, mlp_in, down}`; `mlp_in` is gate | up. `norm` only where
 * the deepest hidden state is the model's last one, which alone passes it.
 */
export function textEncoderTable(sizes: TextEncoderSizes): SlotTable {
  const layers = Array.from({ length: sizes.numLayersNeeded }, (_, i) => `layer.${i}`);
  const builder = slotBuilder("text_encoder", "model", [layers]);
  builder.add("embedding", "embed_tokens", "model.embed_tokens.weight", [sizes.vocabSize, sizes.hiddenSize]);
  for (let i = 0; i < sizes.numHiddenLayers; i++) {
    if (i < sizes.numLayersNeeded) decoderLayer(builder, i, sizes);
    else for (const name of decoderLayerNames) builder.skip(`model.layers.${i}.${name}.weight`);
  }
  if (sizes.numHiddenLayers === sizes.numLayersNeeded) {
    builder.add("vector", "norm", "model.norm.weight", [sizes.hiddenSize]);
  } else {
    builder.skip("model.norm.weight");
  }
  builder.skip("lm_head.weight");
  return builder.table;
}

const decoderLayerNames = [
  "input_layernorm",
  "self_attn.q_proj",
  "self_attn.k_proj",
  "self_attn.v_proj",
  "self_attn.q_norm",
  "self_attn.k_norm",
  "self_attn.o_proj",
  "post_attention_layernorm",
  "mlp.gate_proj",
  "mlp.up_proj",
  "mlp.down_proj",
] as const;

function decoderLayer(builder: SlotBuilder, i: number, sizes: TextEncoderSizes): void {
  const { hiddenSize, intermediateSize, headDim } = sizes;
  const queryWidth = sizes.numAttentionHeads * headDim; // need not be hiddenSize
  const keyWidth = sizes.numKeyValueHeads * headDim;
  const slot = `layer.${i}`;
  const stored = (name: (typeof decoderLayerNames)[number]) => `model.layers.${i}.${name}.weight`;
  const qkv = [
    [stored("self_attn.q_proj"), queryWidth],
    [stored("self_attn.k_proj"), keyWidth],
    [stored("self_attn.v_proj"), keyWidth],
  ] as const;
  const gateUp = [
    [stored("mlp.gate_proj"), intermediateSize],
    [stored("mlp.up_proj"), intermediateSize],
  ] as const;
  builder.add("vector", `${slot}.input_norm`, stored("input_layernorm"), [hiddenSize]);
  builder.stack("matrix", `${slot}.qkv`, qkv, [hiddenSize]);
  builder.add("vector", `${slot}.q_norm`, stored("self_attn.q_norm"), [headDim]);
  builder.add("vector", `${slot}.k_norm`, stored("self_attn.k_norm"), [headDim]);
  builder.add("matrix", `${slot}.o`, stored("self_attn.o_proj"), [hiddenSize, queryWidth]);
  builder.add("vector", `${slot}.post_norm`, stored("post_attention_layernorm"), [hiddenSize]);
  builder.stack("matrix", `${slot}.mlp_in`, gateUp, [hiddenSize]);
  builder.add("matrix", `${slot}.down`, stored("mlp.down_proj"), [hiddenSize, intermediateSize]);
}

/**
 * Slots of AutoencoderKLFlux2 under diffusers' own module paths: `X.weight` (conv, matrix or vector) and `X.bias`
 * (vector). The attention's to_q, to_k, to_v are stacked as `….attentions.0.qkv.weight` and `.bias`; the latents'
 * statistics are `bn.mean` and `bn.var`, [4 · latentChannels].
 */
export function vaeTable(sizes: VaeSizes): SlotTable {
  const builder = slotBuilder("vae", "diffusion_pytorch_model");
  vaeEncoder(builder, sizes);
  vaeDecoder(builder, sizes);
  const { latentChannels } = sizes;
  if (sizes.useQuantConv) conv(builder, "quant_conv", 2 * latentChannels, 2 * latentChannels, 1);
  if (sizes.usePostQuantConv) conv(builder, "post_quant_conv", latentChannels, latentChannels, 1);
  builder.add("vector", "bn.mean", "bn.running_mean", [4 * latentChannels]);
  builder.add("vector", "bn.var", "bn.running_var", [4 * latentChannels]);
  builder.skip("bn.num_batches_tracked");
  return builder.table;
}

function vaeEncoder(builder: SlotBuilder, sizes: VaeSizes): void {
  const widths = sizes.blockOutChannels;
  let channels = widths[0]!;
  conv(builder, "encoder.conv_in", channels, sizes.inChannels, 3);
  for (const [level, width] of widths.entries()) {
    const block = `encoder.down_blocks.${level}`;
    for (let j = 0; j < sizes.layersPerBlock; j++) {
      resnet(builder, `${block}.resnets.${j}`, channels, width);
      channels = width;
    }
    if (level < widths.length - 1) conv(builder, `${block}.downsamplers.0.conv`, width, width, 3);
  }
  midBlock(builder, "encoder.mid_block", channels, sizes);
  norm(builder, "encoder.conv_norm_out", channels);
  conv(builder, "encoder.conv_out", 2 * sizes.latentChannels, channels, 3); // mean and log variance
}

function vaeDecoder(builder: SlotBuilder, sizes: VaeSizes): void {
  const widths = [...sizes.decoderBlockOutChannels].reverse(); // from the latents up
  let channels = widths[0]!;
  conv(builder, "decoder.conv_in", channels, sizes.latentChannels, 3);
  midBlock(builder, "decoder.mid_block", channels, sizes);
  for (const [level, width] of widths.entries()) {
    const block = `decoder.up_blocks.${level}`;
    for (let j = 0; j < sizes.layersPerBlock + 1; j++) {
      resnet(builder, `${block}.resnets.${j}`, channels, width);
      channels = width;
    }
    if (level < widths.length - 1) conv(builder, `${block}.upsamplers.0.conv`, width, width, 3);
  }
  norm(builder, "decoder.conv_norm_out", channels);
  conv(builder, "decoder.conv_out", sizes.outChannels, channels, 3);
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

function midBlock(builder: SlotBuilder, module: string, channels: number, sizes: VaeSizes): void {
  resnet(builder, `${module}.resnets.0`, channels, channels);
  resnet(builder, `${module}.resnets.1`, channels, channels);
  if (!sizes.midBlockAddAttention) return;
  const attention = `${module}.attentions.0`;
  const stacked = (suffix: string) =>
    ["to_q", "to_k", "to_v"].map((name) => [`${attention}.${name}.${suffix}`, channels] as const);
  norm(builder, `${attention}.group_norm`, channels);
  builder.stack("matrix", `${attention}.qkv.weight`, stacked("weight"), [channels]);
  builder.stack("vector", `${attention}.qkv.bias`, stacked("bias"), []);
  builder.add("matrix", `${attention}.to_out.0.weight`, `${attention}.to_out.0.weight`, [channels, channels]);
  builder.add("vector", `${attention}.to_out.0.bias`, `${attention}.to_out.0.bias`, [channels]);
}
