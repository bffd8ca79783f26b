// A checkpoint's config files as typed sizes: model_index, scheduler, those of the components, and the checks across them.
// Owns which checkpoints of the family are accepted. Knows no tensor's name and no device. Every size that the engine uses
// comes from here; none is assumed to be a power of two or a multiple of eight.

import { DaybreakError } from "../../../errors.js";
import { type ConfigFields, configReader } from "../../weights/config-fields.js";
import { type CheckpointSource, quote } from "../../weights/source.js";
import { parseTextEncoderConfig, promptHiddenStates, type TextEncoderConfig } from "../qwen3/config.js";
import { parseTransformerConfig, type TransformerConfig } from "./transformer-config.js";
import { parseVaeConfig, patchSize, type VaeConfig } from "./vae-config.js";

/** Longest prompt with its chat template, in tokens: the sequence that FLUX.2 [klein] was trained with. */
export const promptTokens = 512;
/** The pipeline's timestep is 1000·sigma, and the transformer was trained with that. */
const numTrainTimesteps = 1000;

export type ModelIndex = {
  className: string;
  /** Distilled checkpoints take 4 steps and no guidance; an absent field means false. */
  isDistilled: boolean;
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
  const className = fields.raw("_class_name");
  // What Flux2KleinKVPipeline computes with references is something else: they do not see the picture.
  if (typeof className !== "string" || !/^Flux2Klein(?!KV)\w*$/.test(className)) {
    fields.unsupported("_class_name", '"Flux2KleinPipeline" or one that computes the same');
  }
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
  return { className: className as string, isDistilled: fields.boolean("is_distilled", false) };
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
