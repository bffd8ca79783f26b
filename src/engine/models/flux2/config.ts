// A checkpoint's config files as typed sizes: model_index, transformer, VAE, scheduler, and the checks across them.
// Owns which checkpoints of the family are accepted. Knows no tensor's name and no device. Every size that the engine uses
// comes from here; none is assumed to be a power of two or a multiple of eight.

import { DaybreakError } from "../../../errors.js";
import { mostHeadSize } from "../../ops/attention.js";
import { type ConfigFields, configReader } from "../../weights/config-fields.js";
import { type CheckpointSource, quote } from "../../weights/source.js";
import { parseTextEncoderConfig, promptHiddenStates, type TextEncoderConfig } from "../qwen3/config.js";

/** Patchify takes 2×2 latent pixels into the channels: a token is 2 · scaleFactor pixels wide. */
const patchSize = 2;
/** Longest prompt with its chat template, in tokens: the sequence that FLUX.2 [klein] was trained with. */
export const promptTokens = 512;
/** Requests ask for multiples of 16 pixels, which a token's width must therefore divide. */
export const maxTokenPixels = 16;
/** The pipeline's timestep is 1000·sigma, and the transformer was trained with that. */
const numTrainTimesteps = 1000;

export type ModelIndex = {
  className: string;
  /** Distilled checkpoints take 4 steps and no guidance; an absent field means false. */
  isDistilled: boolean;
};

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

/** Sizes of the VAE, in channels unless stated otherwise. */
export type VaeConfig = {
  /** RGB: 3. */
  inChannels: number;
  outChannels: number;
  latentChannels: number;
  /** The encoder's widths, from the picture's resolution down. */
  blockOutChannels: number[];
  /** The decoder's widths in the same order, picture's resolution first; the same as the encoder's unless given. */
  decoderBlockOutChannels: number[];
  /** ResNets per encoder block; a decoder block has one more. */
  layersPerBlock: number;
  normNumGroups: number;
  midBlockAddAttention: boolean;
  useQuantConv: boolean;
  usePostQuantConv: boolean;
  /** Of the latents' normalisation by `bn`. */
  batchNormEps: number;
  /** Default side of a picture, in pixels; a multiple of 16. */
  sampleSize: number;
  /** Pixels per latent pixel: 2^(levels − 1). */
  scaleFactor: number;
};

/** Nothing but what the pipeline reads: it computes mu itself, base_shift and max_shift are unused. */
export type SchedulerConfig = { numTrainTimesteps: number };

export type CheckpointConfig = {
  modelIndex: ModelIndex;
  transformer: TransformerConfig;
  vae: VaeConfig;
  scheduler: SchedulerConfig;
  textEncoder: TextEncoderConfig;
};

/** Pixels that a token covers on each axis. */
export function tokenPixels({ vae }: CheckpointConfig): number {
  return patchSize * vae.scaleFactor;
}

/**
 * Reads and checks a checkpoint's config files.
 * @param supported the family with its classes, for messages
 * Errors: `model.part_missing`, `model.architecture_unsupported`, `model.config_invalid`, and those of the source.
 */
export async function loadConfigs(source: CheckpointSource, supported: string): Promise<CheckpointConfig> {
  const read = await configReader(source, supported);
  const config: CheckpointConfig = {
    modelIndex: parseModelIndex(await read("model_index.json")),
    transformer: parseTransformerConfig(await read("transformer/config.json")),
    vae: parseVaeConfig(await read("vae/config.json")),
    scheduler: parseSchedulerConfig(await read("scheduler/scheduler_config.json")),
    textEncoder: parseTextEncoderConfig(await read("text_encoder/config.json")),
  };
  checkTogether(config);
  return config;
}

/** Component → the classes that the engine implements; both tokenizer classes read the same files. */
const componentClasses: Record<string, readonly string[]> = {
  scheduler: ["FlowMatchEulerDiscreteScheduler"],
  text_encoder: ["Qwen3ForCausalLM"],
  tokenizer: ["Qwen2TokenizerFast", "Qwen2Tokenizer"],
  transformer: ["Flux2Transformer2DModel"],
  vae: ["AutoencoderKLFlux2"],
};

/**
 * Reads and checks `model_index.json`.
 * Errors: `model.architecture_unsupported`, `model.part_missing` (a component is null), `model.config_invalid`.
 */
function parseModelIndex(fields: ConfigFields): ModelIndex {
  fields.oneOf("_class_name", ["Flux2KleinPipeline"]);
  for (const [component, classes] of Object.entries(componentClasses)) {
    const value = fields.raw(component) ?? [null, null];
    if (!Array.isArray(value) || value.length !== 2) fields.invalid(component, `["library", ${quote(classes[0])}]`);
    if (value[1] === null) {
      throw new DaybreakError(
        "model.part_missing",
        `${fields.path} names no ${component}, expected ${classes[0]}: fetch the whole checkpoint`,
      );
    }
    if (!classes.includes(value[1])) {
      throw new DaybreakError(
        "model.architecture_unsupported",
        `${fields.path}: got ${component} of class ${quote(value[1])}, expected ${classes[0]}: only ${fields.supported} runs here`,
      );
    }
  }
  return { className: "Flux2KleinPipeline", isDistilled: fields.boolean("is_distilled", false) };
}

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

/**
 * Reads and checks `vae/config.json`.
 * Errors: `model.architecture_unsupported`, `model.config_invalid`.
 */
export function parseVaeConfig(fields: ConfigFields): VaeConfig {
  fields.oneOf("_class_name", ["AutoencoderKLFlux2"]);
  fields.oneOf("in_channels", [3]);
  fields.oneOf("out_channels", [3]);
  fields.oneOf("act_fn", ["silu"]);
  const patch = fields.integers("patch_size", { minLength: 2, maxLength: 2, min: 1, max: 1024 });
  if (patch.some((side) => side !== patchSize)) fields.unsupported("patch_size", `[${patchSize},${patchSize}]`);

  const maxLevels = Math.log2(maxTokenPixels / patchSize) + 1;
  const widths = { minLength: 1, maxLength: maxLevels, min: 1, max: 8192 };
  const blockOutChannels = fields.integers("block_out_channels", widths);
  const levels = blockOutChannels.length;
  const decoderBlockOutChannels =
    (fields.raw("decoder_block_out_channels") ?? null) === null
      ? blockOutChannels
      : fields.integers("decoder_block_out_channels", { ...widths, minLength: levels, maxLength: levels });
  checkBlockTypes(fields, "down_block_types", "DownEncoderBlock2D", levels);
  checkBlockTypes(fields, "up_block_types", "UpDecoderBlock2D", levels);

  const normNumGroups = fields.integer("norm_num_groups", { min: 1, max: 8192 });
  for (const width of [...blockOutChannels, ...decoderBlockOutChannels]) {
    if (width % normNumGroups !== 0)
      fields.invalid("norm_num_groups", `a divisor of every block's channels, not so of ${width}`);
  }
  const sampleSize = fields.integer("sample_size", { min: maxTokenPixels, max: 2048 });
  if (sampleSize % maxTokenPixels !== 0) fields.invalid("sample_size", `a multiple of ${maxTokenPixels}`);
  return {
    inChannels: 3,
    outChannels: 3,
    latentChannels: fields.integer("latent_channels", { min: 1, max: 1024 }),
    blockOutChannels,
    decoderBlockOutChannels,
    layersPerBlock: fields.integer("layers_per_block", { min: 1, max: 64 }),
    normNumGroups,
    midBlockAddAttention: fields.boolean("mid_block_add_attention", true),
    useQuantConv: fields.boolean("use_quant_conv", true),
    usePostQuantConv: fields.boolean("use_post_quant_conv", true),
    batchNormEps: fields.number("batch_norm_eps", { min: 1e-12, max: 1e-1 }),
    sampleSize,
    scaleFactor: 2 ** (levels - 1),
  };
}

function checkBlockTypes(fields: ConfigFields, key: string, type: string, levels: number): void {
  const types = fields.raw(key);
  if (!Array.isArray(types) || types.length !== levels)
    fields.invalid(key, `${levels} names, one for each of block_out_channels`);
  if (!types.every((name) => name === type)) fields.unsupported(key, `${type} everywhere`);
}

/**
 * Reads and checks `scheduler/scheduler_config.json`: the flags must be those under which klein's pipeline computes
 * its sigmas with its own mu.
 * Errors: `model.architecture_unsupported`, `model.config_invalid`.
 */
function parseSchedulerConfig(fields: ConfigFields): SchedulerConfig {
  fields.oneOf("_class_name", ["FlowMatchEulerDiscreteScheduler"]);
  fields.oneOf("use_dynamic_shifting", [true]);
  fields.oneOf("time_shift_type", ["exponential", undefined]);
  fields.oneOf("shift_terminal", [null, undefined]);
  const flags = [
    "invert_sigmas",
    "stochastic_sampling",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
  ];
  for (const flag of flags) fields.oneOf(flag, [false, undefined]);
  fields.oneOf("num_train_timesteps", [numTrainTimesteps, undefined]);
  return { numTrainTimesteps };
}

/** What one component's config says about another's sizes. */
function checkTogether({ transformer, vae, textEncoder }: CheckpointConfig): void {
  const tokenChannels = vae.latentChannels * patchSize * patchSize;
  if (transformer.inChannels !== tokenChannels) {
    throw new DaybreakError(
      "model.config_invalid",
      `transformer/config.json has in_channels ${transformer.inChannels}, expected 4 · latent_channels of vae/config.json = ${tokenChannels}: the parts are of different checkpoints`,
    );
  }
  const contextSize = promptHiddenStates.length * textEncoder.hiddenSize;
  if (transformer.jointAttentionDim !== contextSize) {
    throw new DaybreakError(
      "model.config_invalid",
      `transformer/config.json has joint_attention_dim ${transformer.jointAttentionDim}, expected 3 · hidden_size of text_encoder/config.json = ${contextSize}: the parts are of different checkpoints`,
    );
  }
}
