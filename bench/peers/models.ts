// The same work as our cases, as ONNX graphs: what a user of ONNX Runtime would run for it. Knows the operators, no
// runtime. Weights are constants, as in an exported model, so that the runtime may repack them before the first run.
// Of each repetition's result a few elements go into the output "sample": they make the runtime do all of the work and
// wait for it without moving megabytes back. "result" is the last repetition's whole result, for the comparison.

import { sampleValues } from "../../src/engine/tuning/inputs.js";
import { assert } from "../../src/errors.js";
import {
  type AttentionShape,
  type BenchCase,
  type ConvShape,
  eps,
  type GroupNormShape,
  type MatmulShape,
  type RowNormShape,
} from "../cases.js";
import type { OnnxConstant, OnnxGraph, OnnxNode } from "./onnx.js";

/** One run of an operation: from the constants to a tensor of `dims`. */
type Work = {
  /** What it is made of, for people. */
  operators: string;
  constants: Record<string, OnnxConstant>;
  /** The nodes of repetition `i`, whose last output is named `y${i}`. */
  nodes: (i: number) => OnnxNode[];
  dims: number[];
};

export type PeerModel = {
  operators: string;
  graph: OnnxGraph;
  /** Brings the peer's result into our order of elements. */
  toOurs: (values: Float32Array) => Float32Array;
};

/**
 * The graphs that do a case's work `repetitions` times, the one that the peer is expected to be fastest at first; none
 * where the peer has no operator for it, or no dtype. Each is made when it is called for: its constants are large.
 */
export function peerModels(benchCase: BenchCase, repetitions: number): (() => PeerModel)[] {
  return peerWorks(benchCase).map((work) => () => graphOf(work(), repetitions));
}

function graphOf({ operators, constants, nodes, dims }: Work, repetitions: number): PeerModel {
  const rank = dims.length;
  const graph: OnnxGraph = {
    nodes: [],
    constants: {
      ...constants,
      "sample starts": int64(dims.map((n) => n - 1)),
      "sample ends": int64(dims),
      "sample axes": int64(dims.map((_, axis) => axis)),
    },
    outputs: {
      sample: { dims: [...dims.slice(1).map(() => 1), repetitions] },
      result: { dims },
    },
  };
  const samples: string[] = [];
  for (let i = 0; i < repetitions; i++) {
    const name = `sample${i}`;
    samples.push(name);
    const inputs = [`y${i}`, "sample starts", "sample ends", "sample axes"];
    graph.nodes.push(...nodes(i), { operator: "Slice", inputs, outputs: [name] });
  }
  graph.nodes.push(
    { operator: "Concat", inputs: samples, outputs: ["sample"], attributes: { axis: { int: rank - 1 } } },
    { operator: "Identity", inputs: [`y${repetitions - 1}`], outputs: ["result"] },
  );
  // Images are [1, C, h, w] there and [h·w, C] here.
  return { operators, graph, toOurs: (values) => (rank === 4 ? permute(values, dims, [0, 2, 3, 1]) : values) };
}

function peerWorks({ shape, operands, weights }: BenchCase): (() => Work)[] {
  // In f16 the peer would round elsewhere; bf16 it does not have, so it gets the same numbers as f32.
  if (operands !== "f32") return [];
  switch (shape.op) {
    case "matmul":
      return shape.epilogue || weights === undefined ? [] : [() => matmulWork(shape)];
    case "attention":
      // The fused operator gives other results than the formula on some devices with subgroups of eight.
      return shape.causal ? [] : [() => fusedAttentionWork(shape), () => composedAttentionWork(shape)];
    case "conv2d":
      return [() => convWork(shape)];
    case "group_norm":
      return [() => groupNormWork(shape)];
    case "layer_norm_modulate":
      return [() => layerNormWork(shape)];
    case "rms_norm":
      return [() => rmsNormWork(shape)];
    default:
      return [];
  }
}

function matmulWork({ m, k, n }: MatmulShape): Work {
  return {
    operators: "MatMul",
    constants: {
      a: float32([m, k], sampleValues("a", m * k)),
      w: float32([k, n], permute(sampleValues("weight", n * k), [n, k], [1, 0])),
    },
    nodes: (i) => [{ operator: "MatMul", inputs: ["a", "w"], outputs: [`y${i}`] }],
    dims: [m, n],
  };
}

/** MultiHeadAttention takes tokens first: [1, tokens, heads·D]. */
function fusedAttentionWork({ tokens, heads, headSize }: AttentionShape): Work {
  const dims = [1, tokens, heads * headSize];
  const tokensFirst = (name: string) =>
    float32(dims, permute(sampleValues(name, heads * tokens * headSize), [heads, tokens, headSize], [1, 0, 2]));
  return {
    operators: "MultiHeadAttention",
    constants: { q: tokensFirst("q"), k: tokensFirst("k"), v: tokensFirst("v") },
    nodes: (i) => [
      {
        operator: "MultiHeadAttention",
        domain: "com.microsoft",
        inputs: ["q", "k", "v"],
        outputs: [`y${i}`],
        attributes: { num_heads: { int: heads } },
      },
    ],
    dims,
  };
}

function convWork({ height, width, inputs, outputs, mode }: ConvShape): Work {
  const stride = mode === "downsample" ? 2 : 1;
  const scale = mode === "upsample" ? 2 : 1;
  // Top, left, bottom, right: the downsampler pads below and to the right only.
  const pads = mode === "downsample" ? [0, 0, 1, 1] : [1, 1, 1, 1];
  const x = permute(sampleValues("x", height * width * inputs), [height, width, inputs], [2, 0, 1]);
  const weight = sampleValues("weight", outputs * 9 * inputs);
  return {
    operators: scale === 1 ? "Conv" : "Resize + Conv",
    constants: {
      x: float32([1, inputs, height, width], x),
      w: float32([outputs, inputs, 3, 3], permute(weight, [outputs, 3, 3, inputs], [0, 3, 1, 2])),
      bias: float32([outputs], sampleValues("bias", outputs)),
      scales: float32([4], Float32Array.of(1, 1, scale, scale)),
    },
    nodes: (i) => {
      const attributes = { pads: { ints: pads }, strides: { ints: [stride, stride] }, kernel_shape: { ints: [3, 3] } };
      const convolve = (input: string): OnnxNode => ({
        operator: "Conv",
        inputs: [input, "w", "bias"],
        outputs: [`y${i}`],
        attributes,
      });
      if (scale === 1) return [convolve("x")];
      const enlarge: OnnxNode = {
        operator: "Resize",
        inputs: ["x", "", "scales"],
        outputs: [`enlarged${i}`],
        attributes: {
          mode: { text: "nearest" },
          coordinate_transformation_mode: { text: "asymmetric" },
          nearest_mode: { text: "floor" },
        },
      };
      return [enlarge, convolve(`enlarged${i}`)];
    },
    dims: [1, outputs, (height * scale) / stride, (width * scale) / stride],
  };
}

/** The scores of more heads than these are not held at once: the runtime binds 128 MiB at most on some devices. */
const mostScoreBytes = 100e6;

/** Attention as exporters write it where there is no operator for it: its scores lie in memory, of some heads at a time. */
function composedAttentionWork({ tokens, heads, headSize }: AttentionShape): Work {
  const perChunk = Math.max(1, Math.min(heads, Math.floor(mostScoreBytes / (4 * tokens ** 2))));
  const perHead = tokens * headSize;
  const constants: Record<string, OnnxConstant> = {
    scale: float32([1], Float32Array.of(1 / Math.sqrt(headSize))),
    merged: int64([1, tokens, heads * headSize]),
  };
  const [q, k, v] = ["q", "k", "v"].map((name) => sampleValues(name, heads * perHead)) as Float32Array[];
  const chunks: string[] = [];
  for (let head = 0; head < heads; head += perChunk) {
    const end = Math.min(head + perChunk, heads);
    const dims = [end - head, tokens, headSize];
    const part = (values: Float32Array) => values.subarray(head * perHead, end * perHead);
    constants[`q${head}`] = float32(dims, part(q!));
    constants[`keys${head}`] = float32([end - head, headSize, tokens], permute(part(k!), dims, [0, 2, 1]));
    constants[`v${head}`] = float32(dims, part(v!));
    chunks.push(String(head));
  }
  return {
    operators: "MatMul + Softmax + MatMul",
    constants,
    nodes: (i): OnnxNode[] => [
      ...chunks.flatMap((h): OnnxNode[] => [
        { operator: "Mul", inputs: [`q${h}`, "scale"], outputs: [`scaled${h}.${i}`] },
        { operator: "MatMul", inputs: [`scaled${h}.${i}`, `keys${h}`], outputs: [`scores${h}.${i}`] },
        {
          operator: "Softmax",
          inputs: [`scores${h}.${i}`],
          outputs: [`p${h}.${i}`],
          attributes: { axis: { int: -1 } },
        },
        { operator: "MatMul", inputs: [`p${h}.${i}`, `v${h}`], outputs: [`chunk${h}.${i}`] },
      ]),
      {
        operator: "Concat",
        inputs: chunks.map((h) => `chunk${h}.${i}`),
        outputs: [`heads${i}`],
        attributes: { axis: { int: 0 } },
      },
      { operator: "Transpose", inputs: [`heads${i}`], outputs: [`t${i}`], attributes: { perm: { ints: [1, 0, 2] } } },
      { operator: "Reshape", inputs: [`t${i}`, "merged"], outputs: [`y${i}`] },
    ],
    dims: [1, tokens, heads * headSize],
  };
}

/** GroupNorm as exporters write it, because the runtime has no WebGPU kernel of its own for it. */
function groupNormWork({ height, width, channels, groups }: GroupNormShape): Work {
  const dims = [1, channels, height, width];
  const x = permute(sampleValues("x", height * width * channels), [height, width, channels], [2, 0, 1]);
  const perChannel = (name: string) => float32([channels, 1, 1], sampleValues(name, channels));
  return {
    operators: "InstanceNormalization + Mul + Add + Sigmoid + Mul",
    constants: {
      x: float32(dims, x),
      ones: float32([groups], new Float32Array(groups).fill(1)),
      zeros: float32([groups], new Float32Array(groups)),
      weight: perChannel("weight"),
      bias: perChannel("bias"),
      grouped: int64([1, groups, -1]),
      image: int64(dims),
    },
    nodes: (i) => [
      { operator: "Reshape", inputs: ["x", "grouped"], outputs: [`g${i}`] },
      {
        operator: "InstanceNormalization",
        inputs: [`g${i}`, "ones", "zeros"],
        outputs: [`n${i}`],
        attributes: { epsilon: { float: eps } },
      },
      { operator: "Reshape", inputs: [`n${i}`, "image"], outputs: [`r${i}`] },
      { operator: "Mul", inputs: [`r${i}`, "weight"], outputs: [`m${i}`] },
      { operator: "Add", inputs: [`m${i}`, "bias"], outputs: [`a${i}`] },
      { operator: "Sigmoid", inputs: [`a${i}`], outputs: [`s${i}`] },
      { operator: "Mul", inputs: [`a${i}`, `s${i}`], outputs: [`y${i}`] },
    ],
    dims,
  };
}

function layerNormWork({ rows, cols }: RowNormShape): Work {
  const modulation = sampleValues("modulation", 2 * cols);
  return {
    operators: "LayerNormalization",
    constants: {
      x: float32([rows, cols], sampleValues("x", rows * cols)),
      scale: float32(
        [cols],
        modulation.slice(cols).map((scale) => 1 + scale),
      ),
      shift: float32([cols], modulation.slice(0, cols)),
    },
    nodes: (i) => [
      {
        operator: "LayerNormalization",
        inputs: ["x", "scale", "shift"],
        outputs: [`y${i}`],
        attributes: { epsilon: { float: eps }, axis: { int: -1 } },
      },
    ],
    dims: [rows, cols],
  };
}

function rmsNormWork({ rows, cols }: RowNormShape): Work {
  return {
    operators: "SimplifiedLayerNormalization",
    constants: {
      x: float32([rows, cols], sampleValues("x", rows * cols)),
      weight: float32([cols], sampleValues("weight", cols)),
    },
    nodes: (i) => [
      {
        operator: "SimplifiedLayerNormalization",
        inputs: ["x", "weight"],
        outputs: [`y${i}`],
        attributes: { epsilon: { float: eps }, axis: { int: -1 } },
      },
    ],
    dims: [rows, cols],
  };
}

function float32(dims: number[], data: Float32Array): OnnxConstant {
  const count = dims.reduce((product, n) => product * n, 1);
  assert(count === data.length, `a constant of [${dims.join(", ")}] got ${data.length} elements`);
  return { dims, data };
}

function int64(values: number[]): OnnxConstant {
  return { dims: [values.length], data: BigInt64Array.from(values, BigInt) };
}

/** Axis `a` of the result is axis `order[a]` of `values`, which has at most four axes of `dims`. */
export function permute(values: Float32Array, dims: readonly number[], order: readonly number[]): Float32Array {
  const strides = dims.map((_, axis) => dims.slice(axis + 1).reduce((product, n) => product * n, 1));
  const extents = [1, 1, 1, 1];
  const steps = [0, 0, 0, 0];
  order.forEach((axis, a) => {
    extents[a + 4 - order.length] = dims[axis]!;
    steps[a + 4 - order.length] = strides[axis]!;
  });
  const [n0, n1, n2, n3] = extents as [number, number, number, number];
  const [s0, s1, s2, s3] = steps as [number, number, number, number];
  const result = new Float32Array(values.length);
  let at = 0;
  for (let i0 = 0; i0 < n0; i0++)
    for (let i1 = 0; i1 < n1; i1++)
      for (let i2 = 0; i2 < n2; i2++) {
        const from = i0 * s0 + i1 * s1 + i2 * s2;
        for (let i3 = 0; i3 < n3; i3++) result[at++] = values[from + i3 * s3]!;
      }
  return result;
}
