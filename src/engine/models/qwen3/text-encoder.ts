// Qwen3 as a text encoder: 512 tokens through the decoder layers up to the deepest hidden state that is used.
// Names are Hugging Face's. Knows no prompt and no picture. Padding tokens are computed like all others, because the
// transformer attends to them; they differ from each other by position alone, and no token attends to them here.

import { assert } from "../../../errors.js";
import type { Recorder } from "../../gpu/recorder.js";
import type { Tensor } from "../../gpu/tensor.js";
import { attention } from "../../ops/attention.js";
import { copyColumns } from "../../ops/columns.js";
import { headTensors, splitHeads } from "../../ops/heads.js";
import { matmul } from "../../ops/matmul.js";
import { rmsNorm } from "../../ops/norm.js";
import type { ForwardOptions } from "../../stages.js";
import type { WeightSet, Weights } from "../../weights/upload.js";
import { promptHiddenStates, type TextEncoderConfig } from "./config.js";

export type TextEncoderInputs = {
  /** [T, hidden]: the tokens' embeddings; becomes the residual stream. */
  hidden: Tensor;
  /** [1, 1] u32: the number of real tokens. */
  length: Tensor;
  /** [T, D/2] each, of positions 0 … T − 1; padding keeps its index. */
  rope: { cos: Tensor; sin: Tensor };
  /** [T, 3·hidden], written: hidden states 9 | 18 | 27 of each token. */
  embeds: Tensor;
};

/** Records the forward pass. */
export function recordTextEncoder(
  recorder: Recorder,
  config: TextEncoderConfig,
  weights: WeightSet,
  inputs: TextEncoderInputs,
  options: ForwardOptions,
): void {
  const { hidden: x, embeds } = inputs;
  const { tap } = options;
  assert(
    x.cols === config.hiddenSize && embeds.cols === promptHiddenStates.length * x.cols,
    `"${x.label}" and "${embeds.label}" do not fit`,
  );
  tap?.("prompt.hidden.0", x);
  // Hidden state k is the residual stream after k layers: after the layers with 0-based index 8, 17 and 26.
  for (let layer = 0; layer < config.numLayersNeeded; layer++) {
    decoderLayer(recorder, config, weights.block(recorder, `layer.${layer}`), inputs, options);
    const part = promptHiddenStates.indexOf((layer + 1) as (typeof promptHiddenStates)[number]);
    if (part < 0) continue;
    // Only a model's very last hidden state has passed the final norm.
    const isLast = layer + 1 === config.numHiddenLayers;
    const state = isLast ? rmsNorm(recorder, x, weights.vector("norm"), { eps: config.rmsNormEps, dtype: "f32" }) : x;
    tap?.(`prompt.hidden.${layer + 1}`, state);
    copyColumns(recorder, state, embeds, part * config.hiddenSize, "prompt embeds");
  }
}

/** x += o_proj(attention(norm(x))); x += down(silu(gate(norm(x)))·up(norm(x))). */
function decoderLayer(
  recorder: Recorder,
  config: TextEncoderConfig,
  weights: Weights,
  { hidden: x, length, rope }: TextEncoderInputs,
  { operands }: ForwardOptions,
): void {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim, intermediateSize, rmsNormEps: eps } = config;
  const tokens = x.rows;
  const normed = rmsNorm(recorder, x, weights.vector("input_norm"), { eps, dtype: operands });
  const qkv = matmul(recorder, normed, weights.matrix("qkv"), { label: "text qkv" });
  const shape = { tokens, heads, kvHeads, headDim };
  const { q, k, v } = headTensors(recorder, { ...shape, dtype: operands }, "text q | k | v");
  splitHeads(recorder, qkv, {
    ...{ q, k, v, ...shape },
    tokenOffset: 0,
    normQ: weights.vector("q_norm"),
    normK: weights.vector("k_norm"),
    eps,
    rope,
    // Qwen3's RoPE pairs channel i with i + D/2, the transformer's with its neighbour.
    ropeStyle: "halves",
  });
  const attended = attention(recorder, q, k, v, {
    label: "text attention",
    heads,
    kvHeads,
    causal: true,
    limit: length,
  });
  const into = { tensor: x, accumulate: true };
  matmul(recorder, attended, weights.matrix("o"), { label: "text o", operands, into });
  const again = rmsNorm(recorder, x, weights.vector("post_norm"), { eps, dtype: operands });
  const gated = matmul(recorder, again, weights.matrix("mlp_in"), {
    label: "text mlp in",
    weightRows: [0, intermediateSize],
    upRow: intermediateSize,
  });
  matmul(recorder, gated, weights.matrix("down"), { label: "text down", operands, into });
}
