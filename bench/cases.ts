// What `daybreak bench kernels` measures: one table of shapes, and how each is recorded through the real operations.
// Knows no clock and no peer. The shapes are klein's (1024² is 4096 image and 512 text tokens, 512² is 1024 and 512)
// and those of the embedded model tiny-shapes; some are meant for GPUs only and are skipped by estimate elsewhere.

import type { Recorder } from "../src/engine/gpu/recorder.js";
import type { Tensor } from "../src/engine/gpu/tensor.js";
import { attention } from "../src/engine/ops/attention.js";
import { attentionWide } from "../src/engine/ops/attention-wide.js";
import { conv2d } from "../src/engine/ops/conv2d.js";
import { splitHeads } from "../src/engine/ops/heads.js";
import { matmul } from "../src/engine/ops/matmul.js";
import { groupNorm, layerNormModulate, rmsNorm } from "../src/engine/ops/norm.js";
import type { SampleInputs } from "../src/engine/ops/variants.js";

export type Operand = "f32" | "f16";
export type WeightKind = "f32" | "bf16";

export type MatmulShape = {
  op: "matmul";
  m: number;
  k: number;
  n: number;
  /** `silu`: y = silu(a·Wᵀ)·(a·Upᵀ), n columns of each. `residual`: y += gate·(a·Wᵀ). */
  epilogue?: "silu" | "residual";
};
export type AttentionShape = {
  op: "attention";
  tokens: number;
  heads: number;
  kvHeads: number;
  headSize: number;
  causal?: boolean;
};
export type WideShape = { op: "attention_wide"; tokens: number; channels: number };
export type ConvShape = {
  op: "conv2d";
  /** Of the input, pixels. */
  height: number;
  width: number;
  inputs: number;
  outputs: number;
  mode: "same" | "upsample" | "downsample";
};
export type GroupNormShape = { op: "group_norm"; height: number; width: number; channels: number; groups: number };
export type RowNormShape = { op: "layer_norm_modulate" | "rms_norm"; rows: number; cols: number };
export type SplitShape = {
  op: "split_heads";
  tokens: number;
  heads: number;
  kvHeads: number;
  headSize: number;
  style: "interleaved" | "halves";
};
export type Shape = MatmulShape | AttentionShape | WideShape | ConvShape | GroupNormShape | RowNormShape | SplitShape;

export type BenchCase = {
  /** Whose shape it is: "klein" or "tiny-shapes". */
  model: string;
  shape: Shape;
  /** Of the weight, for products and convolutions. */
  weights?: WeightKind;
  /** Of what goes into products and attention scores; of the result, for norms. */
  operands: Operand;
};

/** The small number added to variances; peers must use the same. */
export const eps = 1e-6;

const klein = (shape: Shape, ...dtypes: [Operand, WeightKind?][]): BenchCase[] =>
  dtypes.map(([operands, weights]) => ({ model: "klein", shape, operands, weights }));
const tiny = (shape: Shape, ...dtypes: [Operand, WeightKind?][]): BenchCase[] =>
  klein(shape, ...dtypes).map((c) => ({ ...c, model: "tiny-shapes" }));

const product = (m: number, k: number, n: number, epilogue?: MatmulShape["epilogue"]): MatmulShape => ({
  op: "matmul",
  ...{ m, k, n, epilogue },
});
const joint = (tokens: number, heads: number, headSize: number): AttentionShape => ({
  op: "attention",
  ...{ tokens, heads, kvHeads: heads, headSize },
});
const conv = (inputs: number, outputs: number, side: number, mode: ConvShape["mode"] = "same"): ConvShape => ({
  op: "conv2d",
  ...{ inputs, outputs, height: side, width: side, mode },
});

/** Every case, in the order in which they run. */
export const benchCases: readonly BenchCase[] = [
  ...klein(product(512, 3072, 3072), ["f32", "f32"], ["f32", "bf16"], ["f16", "f32"], ["f16", "bf16"]),
  ...klein(product(512, 3072, 3072, "residual"), ["f32", "bf16"], ["f16", "bf16"]),
  ...klein(product(512, 3072, 9216, "silu"), ["f32", "bf16"], ["f16", "bf16"]),
  ...klein(product(1536, 3072, 9216), ["f32", "f32"], ["f32", "bf16"], ["f16", "bf16"]),
  ...klein(product(4608, 3072, 27648), ["f32", "bf16"], ["f16", "bf16"]),
  ...klein(product(1, 3072, 18432), ["f32", "f32"], ["f32", "bf16"]),
  ...klein(joint(1536, 24, 128), ["f32"], ["f16"]),
  ...klein(joint(4608, 24, 128), ["f32"], ["f16"]),
  ...klein({ ...joint(512, 32, 128), kvHeads: 8, causal: true }, ["f32"], ["f16"]),
  ...klein({ op: "attention_wide", tokens: 4096, channels: 512 }, ["f32"]),
  ...klein(conv(256, 256, 128), ["f32", "f32"], ["f32", "bf16"]),
  ...klein(conv(512, 512, 64), ["f32", "f32"], ["f32", "bf16"]),
  ...klein(conv(128, 128, 256), ["f32", "f32"], ["f32", "bf16"]),
  ...klein(conv(256, 256, 64, "upsample"), ["f32", "f32"], ["f32", "bf16"]),
  ...klein(conv(128, 128, 256, "downsample"), ["f32", "f32"], ["f32", "bf16"]),
  ...klein({ op: "group_norm", height: 128, width: 128, channels: 256, groups: 32 }, ["f32"]),
  ...klein({ op: "layer_norm_modulate", rows: 1536, cols: 3072 }, ["f32"], ["f16"]),
  ...klein({ op: "rms_norm", rows: 512, cols: 2560 }, ["f32"], ["f16"]),
  ...klein(
    { op: "split_heads", tokens: 1536, heads: 24, kvHeads: 24, headSize: 128, style: "interleaved" },
    ["f32"],
    ["f16"],
  ),
  ...tiny(product(768, 128, 1152), ["f32", "f32"], ["f32", "bf16"], ["f16", "bf16"]),
  ...tiny(product(768, 512, 128, "residual"), ["f32", "bf16"]),
  ...tiny(product(256, 128, 384, "silu"), ["f32", "bf16"]),
  ...tiny(joint(768, 4, 32), ["f32"], ["f16"]),
  ...tiny(conv(16, 16, 256), ["f32", "f32"], ["f32", "bf16"]),
  ...tiny(conv(32, 32, 128), ["f32", "f32"], ["f32", "bf16"]),
  ...tiny(conv(32, 32, 64, "upsample"), ["f32", "bf16"]),
  ...tiny({ op: "group_norm", height: 256, width: 256, channels: 16, groups: 8 }, ["f32"]),
  ...tiny({ op: "layer_norm_modulate", rows: 768, cols: 128 }, ["f32"]),
  ...tiny({ op: "rms_norm", rows: 512, cols: 64 }, ["f32"]),
  ...tiny({ op: "split_heads", tokens: 768, heads: 4, kvHeads: 4, headSize: 32, style: "interleaved" }, ["f32"]),
];

/** "matmul 512×3072×3072", the dtypes left out. */
export function caseName({ shape }: BenchCase): string {
  switch (shape.op) {
    case "matmul":
      return `matmul ${shape.m}×${shape.k}×${shape.n}${shape.epilogue ? ` ${shape.epilogue}` : ""}`;
    case "attention": {
      const heads = shape.heads === shape.kvHeads ? shape.heads : `${shape.heads}/${shape.kvHeads}`;
      return `attention ${heads} heads × ${shape.headSize}, ${shape.tokens} tokens${shape.causal ? " causal" : ""}`;
    }
    case "attention_wide":
      return `attention_wide ${shape.channels} channels, ${shape.tokens} tokens`;
    case "conv2d": {
      const mode = shape.mode === "same" ? "" : ` ${shape.mode}`;
      return `conv2d 3×3 ${shape.inputs}→${shape.outputs}, ${shape.height}×${shape.width}${mode}`;
    }
    case "group_norm":
      return `group_norm+silu ${shape.channels} channels, ${shape.height}×${shape.width}`;
    case "split_heads":
      return `split_heads ${shape.heads} heads × ${shape.headSize}, ${shape.tokens} tokens`;
    default:
      return `${shape.op} ${shape.rows}×${shape.cols}`;
  }
}

/** "f32×bf16": operands, then weights where there are any. */
export function caseDtype({ operands, weights }: BenchCase): string {
  return weights ? `${operands}×${weights}` : operands;
}

/** FLOPs that a case takes, roughly, before anything is recorded: what decides whether to run it at all. */
export function estimateFlops({ shape }: BenchCase): number {
  switch (shape.op) {
    case "matmul":
      return 2 * shape.m * shape.k * shape.n * (shape.epilogue === "silu" ? 2 : 1);
    case "attention":
      return 4 * shape.tokens ** 2 * shape.heads * shape.headSize * (shape.causal ? 0.5 : 1);
    case "attention_wide":
      return 4 * shape.tokens ** 2 * shape.channels;
    case "conv2d": {
      const perInput = { same: 1, upsample: 4, downsample: 0.25 }[shape.mode];
      return 18 * shape.inputs * shape.outputs * shape.height * shape.width * perInput;
    }
    case "group_norm":
      return 16 * shape.channels * shape.height * shape.width;
    case "split_heads":
      return 24 * shape.heads * shape.headSize * shape.tokens;
    default:
      return 8 * shape.rows * shape.cols;
  }
}

/** Records a case once and returns its result. Inputs are made on the first call and shared by later ones. */
export function recordCase(recorder: Recorder, inputs: SampleInputs, benchCase: BenchCase): Tensor {
  const { shape, operands, weights = "f32" } = benchCase;
  switch (shape.op) {
    case "matmul":
      return recordMatmul(recorder, inputs, shape, operands, weights);
    case "attention": {
      const { tokens, heads, kvHeads, headSize, causal } = shape;
      const q = inputs.tensor("q", heads * tokens, headSize, operands);
      const k = inputs.tensor("k", kvHeads * tokens, headSize, operands);
      const v = inputs.tensor("v", kvHeads * tokens, headSize);
      return attention(recorder, q, k, v, { heads, kvHeads, causal });
    }
    case "attention_wide": {
      const { tokens, channels } = shape;
      const [q, k, v] = ["q", "k", "v"].map((name) => inputs.tensor(name, tokens, channels)) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      return attentionWide(recorder, q, k, v);
    }
    case "conv2d": {
      const { height, width, mode } = shape;
      const x = { tensor: inputs.tensor("x", height * width, shape.inputs), height, width };
      const weight = inputs.weight("weight", shape.outputs, 9 * shape.inputs, weights);
      return conv2d(recorder, x, weight, inputs.vector("bias", shape.outputs), { mode }).tensor;
    }
    case "group_norm": {
      const { channels, groups } = shape;
      const x = inputs.tensor("x", shape.height * shape.width, channels);
      const [weight, bias] = [inputs.vector("weight", channels), inputs.vector("bias", channels)];
      return groupNorm(recorder, x, weight, bias, { groups, eps, silu: true });
    }
    case "layer_norm_modulate": {
      const modulation = inputs.tensor("modulation", 1, 2 * shape.cols);
      const x = inputs.tensor("x", shape.rows, shape.cols);
      return layerNormModulate(recorder, x, modulation, { shiftAt: 0, scaleAt: shape.cols, eps, dtype: operands });
    }
    case "rms_norm": {
      const x = inputs.tensor("x", shape.rows, shape.cols);
      return rmsNorm(recorder, x, inputs.vector("weight", shape.cols), { eps, dtype: operands });
    }
    case "split_heads":
      return recordSplitHeads(recorder, inputs, shape, operands);
  }
}

function recordMatmul(
  recorder: Recorder,
  inputs: SampleInputs,
  { m, k, n, epilogue }: MatmulShape,
  operands: Operand,
  weights: WeightKind,
): Tensor {
  const a = inputs.tensor("a", m, k, operands);
  if (epilogue === "silu") {
    return matmul(recorder, a, inputs.weight("weight", 2 * n, k, weights), { weightRows: [0, n], upRow: n });
  }
  const weight = inputs.weight("weight", n, k, weights);
  if (epilogue !== "residual") return matmul(recorder, a, weight);
  const gate = { tensor: inputs.tensor("gate", 1, n), at: 0 };
  return matmul(recorder, a, weight, { gate, into: { tensor: inputs.tensor("residual", m, n), accumulate: true } });
}

function recordSplitHeads(recorder: Recorder, inputs: SampleInputs, shape: SplitShape, operands: Operand): Tensor {
  const { tokens, heads, kvHeads, headSize, style } = shape;
  const qkv = inputs.tensor("qkv", tokens, (heads + 2 * kvHeads) * headSize);
  const [cos, sin] = [inputs.tensor("cos", tokens, headSize / 2), inputs.tensor("sin", tokens, headSize / 2)];
  const q = recorder.scratch("q", heads * tokens, headSize, operands);
  const k = recorder.scratch("k", kvHeads * tokens, headSize, operands);
  const v = recorder.scratch("v", kvHeads * tokens, headSize);
  splitHeads(recorder, qkv, {
    ...{ q, k, v, tokens, heads, kvHeads, tokenOffset: 0, headDim: headSize, eps, ropeStyle: style },
    ...{ normQ: inputs.vector("norm q", headSize), normK: inputs.vector("norm k", headSize), rope: { cos, sin } },
  });
  return q;
}
