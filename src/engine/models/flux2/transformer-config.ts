// The transformer's config file as typed sizes. Owns which transformers of the family are accepted.

import { mostHeadSize } from "../../ops/attention.js";
import type { ConfigFields } from "../../weights/config-fields.js";

/** Sizes of the transformer, in elements. */
export type TransformerConfig = {
  /** C channels of a token: 4 latent channels' 2×2 patches. Equal to `outChannels`. */
  inChannels: number;
  outChannels: number;
  /** Double blocks. */
  numLayers: number;
  numSingleLayers: number;
  numAttentionHeads: number;
  attentionHeadDim: number;
  /** D = numAttentionHeads · attentionHeadDim. */
  hiddenSize: number;
  /** F = trunc(D · mlp_ratio): width of the gate and of the up half. */
  mlpHiddenSize: number;
  /** Width of the text context: three hidden states of the text encoder. */
  jointAttentionDim: number;
  /** Width of the timestep's sinusoid; even. */
  timestepGuidanceChannels: number;
  /** Channels of a head that each of the 4 position axes (t, h, w, l) rotates; even, their sum is the head size. */
  axesDimsRope: number[];
  ropeTheta: number;
  /** Of every LayerNorm and RMSNorm. */
  eps: number;
};

/**
 * Reads and checks `transformer/config.json`.
 * Errors: `model.architecture_unsupported`, `model.config_invalid`.
 */
export function parseTransformerConfig(fields: ConfigFields): TransformerConfig {
  fields.oneOf("_class_name", ["Flux2Transformer2DModel"]);
  // True in FLUX.2 [dev], whose guidance embedding the engine does not have.
  if (fields.boolean("guidance_embeds")) fields.unsupported("guidance_embeds", "false");
  fields.oneOf("patch_size", [1]);
  const inChannels = fields.integer("in_channels", { min: 1, max: 4096 });
  fields.oneOf("out_channels", [null, undefined, inChannels]);
  const numAttentionHeads = fields.integer("num_attention_heads", { min: 1, max: 256 });
  const attentionHeadDim = fields.integer("attention_head_dim", { min: 2, max: mostHeadSize });
  const hiddenSize = numAttentionHeads * attentionHeadDim;
  const mlpRatio = fields.number("mlp_ratio", { min: 0.1, max: 16 });
  const mlpHiddenSize = Math.trunc(hiddenSize * mlpRatio);
  if (mlpHiddenSize < 1) fields.invalid("mlp_ratio", `at least 1 / ${hiddenSize}`);
  const timestepGuidanceChannels = fields.integer("timestep_guidance_channels", { min: 2, max: 8192 });
  if (timestepGuidanceChannels % 2 !== 0) fields.invalid("timestep_guidance_channels", "an even number");
  return {
    inChannels,
    outChannels: inChannels,
    numLayers: fields.integer("num_layers", { min: 1, max: 512 }),
    numSingleLayers: fields.integer("num_single_layers", { min: 1, max: 512 }),
    numAttentionHeads,
    attentionHeadDim,
    hiddenSize,
    mlpHiddenSize,
    jointAttentionDim: fields.integer("joint_attention_dim", { min: 1, max: 131072 }),
    timestepGuidanceChannels,
    axesDimsRope: axesDimsRope(fields, attentionHeadDim),
    ropeTheta: fields.number("rope_theta", { min: 1.001, max: 1e12 }),
    eps: fields.number("eps", { min: 1e-12, max: 1e-1 }),
  };
}

/** Four axes, as positions are (t, h, w, l); each rotates adjacent pairs. */
function axesDimsRope(fields: ConfigFields, headDim: number): number[] {
  const axes = fields.integers("axes_dims_rope", { minLength: 4, maxLength: 4, min: 2, max: 512 });
  const sum = axes.reduce((total, dim) => total + dim, 0);
  if (axes.some((dim) => dim % 2 !== 0)) fields.invalid("axes_dims_rope", "even numbers");
  if (sum !== headDim) fields.invalid("axes_dims_rope", `numbers whose sum is attention_head_dim = ${headDim}`);
  return axes;
}
