// The FLUX.2 transformer: one velocity from latents, references and text. Names are Black Forest Labs'.
// One residual tensor holds the joint sequence [text | output | references] and the streams are row ranges of it, so
// nothing is ever concatenated. Every size comes from the config.

import type { Recorder } from "../../gpu/recorder.js";
import { sliceRows, type Tensor } from "../../gpu/tensor.js";
import { attention } from "../../ops/attention.js";
import { silu } from "../../ops/elementwise.js";
import { headTensors, splitHeads } from "../../ops/heads.js";
import { matmul } from "../../ops/matmul.js";
import { layerNormModulate } from "../../ops/norm.js";
import type { ForwardOptions } from "../../stages.js";
import { type Weight, type WeightSet, type Weights, withPrefix } from "../../weights/upload.js";
import type { TransformerConfig } from "./transformer-config.js";

export type TransformerInputs = {
  /** [N, C]: the output's tokens. */
  latents: Tensor;
  /** [R, C]: all references' tokens, if there are any. */
  references: Tensor | undefined;
  /** [T, D]: the text after {@link recordContext}. */
  context: Tensor;
  /** One row of what {@link recordModulation} gives. */
  modulation: Modulation;
  /** [T + N + R, d/2] each: the joint sequence's rotations. */
  rope: { cos: Tensor; sin: Tensor };
};

/** A row for each of some steps, shared by all blocks: [n, 6D], [n, 6D], [n, 3D] and [n, 2D]. */
export type Modulation = { img: Tensor; txt: Tensor; single: Tensor; out: Tensor };

type Forward = {
  recorder: Recorder;
  config: TransformerConfig;
  weights: WeightSet;
  inputs: TransformerInputs;
  options: ForwardOptions;
  /** [T + N + R, D]: the residual stream, text tokens first. */
  joint: Tensor;
  txt: Tensor;
  img: Tensor;
};

/** context = context_embedder(embeds): [T, 3·hidden] → [T, D]; the same in every step. */
export function recordContext(recorder: Recorder, weights: WeightSet, embeds: Tensor, context: Tensor): void {
  matmul(recorder, embeds, weights.matrix("context_embedder"), { label: "context", into: { tensor: context } });
}

/**
 * temb = W₂·silu(W₁·sinusoid), then each modulation's linear of silu(temb). sinusoids: [n, timestep channels], a row for
 * each of n steps: the linears are a tenth of the transformer's weights, so that reading them once for several steps pays.
 */
export function recordModulation(
  recorder: Recorder,
  weights: WeightSet,
  sinusoids: Tensor,
  modulation: Modulation,
  tap?: ForwardOptions["tap"],
): void {
  const inner = silu(recorder, matmul(recorder, sinusoids, weights.matrix("time.linear_1"), { label: "time" }));
  const temb = matmul(recorder, inner, weights.matrix("time.linear_2"), { label: "time" });
  const activated = silu(recorder, temb);
  const mod = weights.block(recorder, "mod");
  const linear = (weight: Weight, tensor: Tensor) =>
    matmul(recorder, activated, weight, { label: "modulation", into: { tensor } });
  linear(mod.matrix("img"), modulation.img);
  linear(mod.matrix("txt"), modulation.txt);
  linear(mod.matrix("single"), modulation.single);
  linear(weights.matrix("norm_out"), modulation.out);
  tap?.("step.0.temb", sliceRows(temb, 0, 1));
  tap?.("step.0.mod.img", sliceRows(modulation.img, 0, 1));
  tap?.("step.0.mod.txt", sliceRows(modulation.txt, 0, 1));
  tap?.("step.0.mod.single", sliceRows(modulation.single, 0, 1));
}

/** Tensors for the modulation of `steps` steps, made by `make`. */
export function modulationTensors(
  { hiddenSize: D }: TransformerConfig,
  steps: number,
  make: (label: string, rows: number, cols: number) => Tensor,
): Modulation {
  return {
    img: make("image modulation", steps, 6 * D),
    txt: make("text modulation", steps, 6 * D),
    single: make("single modulation", steps, 3 * D),
    out: make("final modulation", steps, 2 * D),
  };
}

/** Records the forward pass; returns the velocity [N, C] of the output's tokens. */
export function recordTransformer(
  recorder: Recorder,
  config: TransformerConfig,
  weights: WeightSet,
  inputs: TransformerInputs,
  options: ForwardOptions,
): Tensor {
  const { latents, references, context, modulation } = inputs;
  const { tap } = options;
  const D = config.hiddenSize;
  const T = context.rows;
  const N = latents.rows;
  const joint = recorder.scratch("residual", T + N + (references?.rows ?? 0), D);
  // Text tokens come first in the joint sequence; image-first gives a plausible picture of something else.
  const txt = sliceRows(joint, 0, T);
  const img = sliceRows(joint, T, joint.rows);
  const forward: Forward = { recorder, config, weights, inputs, options, joint, txt, img };

  recorder.copy(context, txt);
  const embed = (tokens: Tensor, into: Tensor) =>
    matmul(recorder, tokens, weights.matrix("x_embedder"), { label: "x_embedder", into: { tensor: into } });
  embed(latents, sliceRows(img, 0, N));
  if (references) embed(references, sliceRows(img, N, img.rows));
  tap?.("step.0.x_embedder", img);
  tap?.("step.0.context_embedder", txt);

  for (let i = 0; i < config.numLayers; i++) {
    doubleBlock(forward, i);
    tap?.(`step.0.double.${i}.img`, img);
    tap?.(`step.0.double.${i}.txt`, txt);
  }
  for (let i = 0; i < config.numSingleLayers; i++) {
    singleBlock(forward, i);
    tap?.(`step.0.single.${i}`, joint);
  }

  // Diffusers stores the final layer's modulation as (scale, shift), Black Forest Labs as (shift, scale).
  const final = { label: "norm_out", scaleAt: 0, shiftAt: D, eps: config.eps };
  if (tap) tap("step.0.norm_out", layerNormModulate(recorder, img, modulation.out, { ...final, dtype: "f32" }));
  // References condition the output but are not denoised: their velocities are not computed.
  const output = sliceRows(img, 0, N);
  const normed = layerNormModulate(recorder, output, modulation.out, { ...final, dtype: options.operands });
  return matmul(recorder, normed, weights.matrix("proj_out"), { label: "proj_out" });
}

/** The streams keep their own weights and modulation and attend to each other's tokens. */
function doubleBlock(forward: Forward, i: number): void {
  const { recorder, config, weights, inputs, options, txt, img } = forward;
  const { eps, mlpHiddenSize: F, hiddenSize: D } = config;
  const block = weights.block(recorder, `double.${i}`);
  const streams = [
    { x: txt, own: withPrefix(block, "txt."), modulation: inputs.modulation.txt, tokenOffset: 0 },
    { x: img, own: withPrefix(block, "img."), modulation: inputs.modulation.img, tokenOffset: txt.rows },
  ];
  const heads = jointHeads(forward);
  for (const { x, own, modulation, tokenOffset } of streams) {
    // A modulation is shift, scale, gate of the attention, then of the MLP.
    const norm = { label: "norm", shiftAt: 0, scaleAt: D, eps, dtype: options.operands };
    const normed = layerNormModulate(recorder, x, modulation, norm);
    const qkv = matmul(recorder, normed, own.matrix("qkv"), { label: "double qkv" });
    splitHeads(recorder, qkv, { ...heads, ...headNorms(own), tokenOffset });
  }
  const attended = attention(recorder, heads.q, heads.k, heads.v, heads);
  for (const { x, own, modulation, tokenOffset } of streams) {
    const into = { tensor: x, accumulate: true };
    const rows = sliceRows(attended, tokenOffset, tokenOffset + x.rows);
    matmul(recorder, rows, own.matrix("proj"), {
      operands: options.operands,
      label: "double proj",
      gate: { tensor: modulation, at: 2 * D },
      into,
    });
    const norm = { label: "norm", shiftAt: 3 * D, scaleAt: 4 * D, eps, dtype: options.operands };
    const normed = layerNormModulate(recorder, x, modulation, norm);
    // SiLU gates the first half of the rows; many SwiGLU implementations gate the second.
    const gated = matmul(recorder, normed, own.matrix("mlp_in"), {
      label: "double mlp in",
      weightRows: [0, F],
      upRow: F,
    });
    matmul(recorder, gated, own.matrix("mlp_out"), {
      operands: options.operands,
      label: "double mlp out",
      gate: { tensor: modulation, at: 5 * D },
      into,
    });
  }
}

/** Attention and MLP side by side: both read one norm, and one product takes both back into the residual. */
function singleBlock(forward: Forward, i: number): void {
  const { recorder, config, weights, inputs, options, joint } = forward;
  const { eps, mlpHiddenSize: F, hiddenSize: D } = config;
  const { single } = inputs.modulation;
  const block = weights.block(recorder, `single.${i}`);
  const norm = { label: "norm", shiftAt: 0, scaleAt: D, eps, dtype: options.operands };
  const normed = layerNormModulate(recorder, joint, single, norm);
  // The weight's rows are q | k | v | gate | up.
  const weight = block.matrix("qkv_mlp");
  const qkv = matmul(recorder, normed, weight, { label: "single qkv", weightRows: [0, 3 * D] });
  const heads = jointHeads(forward);
  splitHeads(recorder, qkv, { ...heads, ...headNorms(block), tokenOffset: 0 });
  // Both halves of the next product's input, side by side in one tensor.
  const both = recorder.scratch("single attention | mlp", joint.rows, D + F);
  attention(recorder, heads.q, heads.k, heads.v, { ...heads, into: both });
  matmul(recorder, normed, weight, {
    label: "single mlp in",
    weightRows: [3 * D, 3 * D + F],
    upRow: 3 * D + F,
    into: { tensor: both, column: D },
  });
  matmul(recorder, both, block.matrix("out"), {
    operands: options.operands,
    label: "single out",
    gate: { tensor: single, at: 2 * D },
    into: { tensor: joint, accumulate: true },
  });
}

/** q, k and v of the joint sequence, and how they are made. */
function jointHeads({ recorder, config, inputs, options, joint }: Forward) {
  const { numAttentionHeads: heads, attentionHeadDim: headDim, eps } = config;
  const shape = { tokens: joint.rows, heads, kvHeads: heads, headDim };
  return {
    ...headTensors(recorder, { ...shape, dtype: options.operands }),
    ...shape,
    eps,
    rope: inputs.rope,
    // The transformer's RoPE rotates adjacent pairs, Qwen3's channel halves.
    ropeStyle: "interleaved" as const,
  };
}

function headNorms(weights: Weights) {
  return { normQ: weights.vector("norm_q"), normK: weights.vector("norm_k") };
}
