// FLUX.2 [klein] as the engine sees a model: its bounds, its weights' tables, what records its stages. Knows which parts
// there are and nothing of how they compute.

import type { Model } from "../../family.js";
import type { CheckpointSource } from "../../weights/source.js";
import { promptEncoder } from "../qwen3/prompt-encoder.js";
import { textEncoderTable } from "../qwen3/tensors.js";
import { checkVocabulary, openTokenizer } from "../qwen3/tokenizer-files.js";
import { boundsOf } from "./bounds.js";
import { type CheckpointConfig, loadConfigs, promptTokens } from "./config.js";
import { stagesOf } from "./stages.js";
import { transformerTable, vaeTable } from "./tensors.js";

/** Opens a checkpoint of the family as `Family.open` does; `supported` says what runs here, for messages. */
export async function openFlux2(source: CheckpointSource, supported: string): Promise<Omit<Model, "family">> {
  const config = await loadConfigs(source, supported);
  const tokenizer = await openTokenizer(source, promptTokens);
  checkVocabulary(tokenizer, config.textEncoder);
  return {
    bounds: boundsOf(config),
    tokenizer,
    tables: [textEncoderTable(config.textEncoder), transformerTable(config.transformer), vaeTable(config.vae)],
    sizes: sizesOf(config),
    recording: (owner) => stagesOf(config, promptEncoder(owner, config.textEncoder, promptTokens)),
  };
}

function sizesOf({ transformer, textEncoder, vae }: CheckpointConfig): Model["sizes"] {
  return {
    textEncoder: {
      layers: textEncoder.numHiddenLayers,
      "layers needed": textEncoder.numLayersNeeded,
      hidden: textEncoder.hiddenSize,
      mlp: textEncoder.intermediateSize,
      heads: textEncoder.numAttentionHeads,
      "key heads": textEncoder.numKeyValueHeads,
      "head size": textEncoder.headDim,
      vocabulary: textEncoder.vocabSize,
    },
    transformer: {
      "double blocks": transformer.numLayers,
      "single blocks": transformer.numSingleLayers,
      hidden: transformer.hiddenSize,
      mlp: transformer.mlpHiddenSize,
      heads: transformer.numAttentionHeads,
      "head size": transformer.attentionHeadDim,
      channels: transformer.inChannels,
    },
    vae: {
      "latent channels": vae.latentChannels,
      "pixels per latent": vae.scaleFactor,
      "encoder widths": vae.blockOutChannels,
      "decoder widths": vae.decoderBlockOutChannels,
    },
  };
}
