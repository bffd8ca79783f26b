// Which stored tensors make up which weight of Qwen3 as a text encoder, computed from its config. Spells transformers' names.
// Knows no bytes and no device.

import { type SlotBuilder, type SlotKind, type SlotTable, slotBuilder } from "../../weights/slots.js";
import type { TextEncoderConfig } from "./config.js";

/**
 * Slots of Qwen3ForCausalLM up to the deepest layer that is run: `embed_tokens` (an embedding), and
 * `layer.{i}.{input_norm, qkv, q_norm, k_norm, o, post_norm, mlp_in, down}`; `mlp_in` is gate | up. `norm` only where
 * the deepest hidden state is the model's last one, which alone passes it.
 */
export function textEncoderTable(config: TextEncoderConfig): SlotTable {
  const layers = Array.from({ length: config.numLayersNeeded }, (_, i) => `layer.${i}`);
  const builder = slotBuilder({ name: "textEncoder", usedPer: "prompt", folder: "text_encoder", stem: "model" }, [
    layers,
  ]);
  builder.add("embedding", "embed_tokens", "model.embed_tokens.weight", [config.vocabSize, config.hiddenSize]);
  for (let i = 0; i < config.numHiddenLayers; i++) {
    decoderLayer(builder, i, config);
  }
  if (config.numHiddenLayers === config.numLayersNeeded) {
    builder.add("vector", "norm", "model.norm.weight", [config.hiddenSize]);
  } else {
    builder.skip("model.norm.weight", [config.hiddenSize]);
  }
  builder.skip("lm_head.weight", [config.vocabSize, config.hiddenSize]);
  return builder.table;
}

/** A layer that is run, or one of the file's further ones, whose tensors are known and unused. */
function decoderLayer(builder: SlotBuilder, i: number, config: TextEncoderConfig): void {
  const { hiddenSize, intermediateSize, headDim } = config;
  const queryWidth = config.numAttentionHeads * headDim; // need not be hiddenSize
  const keyWidth = config.numKeyValueHeads * headDim;
  type Part = readonly [module: string, rows: number];
  const slot = (kind: SlotKind, name: string, parts: readonly Part[], tail: readonly number[]) => {
    const stored = parts.map(([module, rows]) => [`model.layers.${i}.${module}.weight`, rows] as const);
    if (i < config.numLayersNeeded) builder.stack(kind, `layer.${i}.${name}`, stored, tail);
    else for (const [part, rows] of stored) builder.skip(part, [rows, ...tail]);
  };
  const q = ["self_attn.q_proj", queryWidth] as const;
  const k = ["self_attn.k_proj", keyWidth] as const;
  const v = ["self_attn.v_proj", keyWidth] as const;
  slot("vector", "input_norm", [["input_layernorm", hiddenSize]], []);
  slot("matrix", "qkv", [q, k, v], [hiddenSize]);
  slot("vector", "q_norm", [["self_attn.q_norm", headDim]], []);
  slot("vector", "k_norm", [["self_attn.k_norm", headDim]], []);
  slot("matrix", "o", [["self_attn.o_proj", hiddenSize]], [queryWidth]);
  slot("vector", "post_norm", [["post_attention_layernorm", hiddenSize]], []);
  const gateUp = ["gate_proj", "up_proj"].map((name) => [`mlp.${name}`, intermediateSize] as const);
  slot("matrix", "mlp_in", gateUp, [hiddenSize]);
  slot("matrix", "down", [["mlp.down_proj", hiddenSize]], [intermediateSize]);
}
