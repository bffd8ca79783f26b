// The text encoder's config.json as typed sizes. Owns which Qwen3 checkpoints the engine accepts.
// Knows neither files' bytes nor tensors. `rope_theta` moved between transformers 4 (top level) and 5
// (`rope_parameters`); both are read.

import { mostHeadSize } from "../../ops/attention.js";
import type { ConfigFields } from "../../weights/config-fields.js";
import { isRecord } from "../../weights/source.js";

/**
 * The hidden states that FLUX.2 [klein] concatenates, as counts of decoder layers that have run: the residual stream
 * after the layers with 0-based index 8, 17 and 26. A constant of the pipeline, not of the checkpoint.
 */
export const promptHiddenStates = [9, 18, 27] as const;
/** Decoder layers that the prompt's hidden states need; a checkpoint's further layers are not loaded. */
const layersNeeded = 27;

/** Sizes in elements; names are those of config.json. */
export type TextEncoderConfig = {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  /** Layers in the file: at least {@link layersNeeded}. */
  numHiddenLayers: number;
  /** Layers that are run: {@link layersNeeded}. */
  numLayersNeeded: number;
  /** H query heads; `numAttentionHeads · headDim` need not be `hiddenSize`. */
  numAttentionHeads: number;
  /** Key and value heads; query head h uses key head ⌊h / (H / numKeyValueHeads)⌋. */
  numKeyValueHeads: number;
  /** Even: RoPE rotates the halves against each other. */
  headDim: number;
  rmsNormEps: number;
  ropeTheta: number;
};

/**
 * Reads and checks `text_encoder/config.json`.
 * Errors: `model.architecture_unsupported`, `model.config_invalid`.
 */
export function parseTextEncoderConfig(fields: ConfigFields): TextEncoderConfig {
  const architectures = fields.raw("architectures");
  if (!Array.isArray(architectures) || architectures.length !== 1 || architectures[0] !== "Qwen3ForCausalLM") {
    fields.unsupported("architectures", '["Qwen3ForCausalLM"]');
  }
  fields.oneOf("model_type", ["qwen3"]);
  fields.oneOf("hidden_act", ["silu"]);
  fields.oneOf("attention_bias", [false, undefined]);
  fields.oneOf("use_sliding_window", [false, undefined]);

  const config: TextEncoderConfig = {
    vocabSize: fields.integer("vocab_size", { min: 1, max: 2 ** 24 }),
    hiddenSize: fields.integer("hidden_size", { min: 1, max: 32768 }),
    intermediateSize: fields.integer("intermediate_size", { min: 1, max: 262144 }),
    numHiddenLayers: fields.integer("num_hidden_layers", { min: layersNeeded, max: 1024 }),
    numLayersNeeded: layersNeeded,
    numAttentionHeads: fields.integer("num_attention_heads", { min: 1, max: 1024 }),
    numKeyValueHeads: fields.integer("num_key_value_heads", { min: 1, max: 1024 }),
    headDim: fields.integer("head_dim", { min: 2, max: mostHeadSize }),
    rmsNormEps: fields.number("rms_norm_eps", { min: 1e-12, max: 1e-1 }),
    ropeTheta: ropeTheta(fields),
  };
  if (config.headDim % 2 !== 0) fields.invalid("head_dim", "an even number");
  if (config.numAttentionHeads % config.numKeyValueHeads !== 0) {
    fields.invalid("num_key_value_heads", `a divisor of num_attention_heads = ${config.numAttentionHeads}`);
  }
  checkLayerTypes(fields, config.numHiddenLayers);
  return config;
}

/** `layer_types` is newer than Qwen3; where it is absent every layer has full attention. */
function checkLayerTypes(fields: ConfigFields, numHiddenLayers: number): void {
  const types = fields.raw("layer_types") ?? undefined;
  if (types === undefined) return;
  if (!Array.isArray(types) || types.length !== numHiddenLayers) {
    fields.invalid("layer_types", `${numHiddenLayers} names`);
  }
  if (!types.every((type) => type === "full_attention")) fields.unsupported("layer_types", "full_attention everywhere");
}

/** `rope_theta` from either place; the positions must not be scaled. */
function ropeTheta(fields: ConfigFields): number {
  const range = { min: 1.001, max: 1e12 };
  const topLevel = fields.raw("rope_theta") ?? undefined;
  let nested: unknown;
  for (const key of ["rope_parameters", "rope_scaling"]) {
    const value = fields.raw(key) ?? undefined;
    if (value === undefined) continue;
    if (!isRecord(value)) return fields.invalid(key, "an object or null");
    const type = Object.hasOwn(value, "rope_type") ? value.rope_type : value.type;
    if (type !== undefined && type !== "default") fields.unsupported(key, 'null or rope_type "default"');
    if (Object.hasOwn(value, "rope_theta")) nested = value.rope_theta;
  }
  if (nested === undefined) return fields.number("rope_theta", range);
  if (topLevel !== undefined && topLevel !== nested) fields.invalid("rope_theta", `${nested} as in rope_parameters`);
  if (typeof nested === "number" && nested >= range.min && nested <= range.max) return nested;
  return fields.invalid("rope_parameters", `a rope_theta from ${range.min} to ${range.max}`);
}
