// Attention of many heads of up to 128 channels (transformer, text encoder), with streaming softmax; one wide head is
// in attention-wide.ts. It is cut by heads and queries, and by keys where those of one head exceed a binding, see
// cut.ts: then maxima and sums pass from dispatch to dispatch in a state tensor.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { padded8, rowBytes, type Tensor } from "../gpu/tensor.js";
import { type AttentionPart, cutAttention, rowsPerBinding } from "./cut.js";
import { attentionMatrixVariants } from "./matrix-tiles.js";
import { tensorRowScales } from "./row-scale.js";
import { chooseVariant, sizeClass, usesSubgroupKernels, type Variant, type Workload } from "./variants.js";

export type AttentionOptions = {
  label?: string;
  heads: number;
  /** Query head h uses key head ⌊h / (heads / kvHeads)⌋. */
  kvHeads: number;
  /** Key j is visible to query i if j ≤ i. */
  causal?: boolean;
  /** [1, 1] u32: keys at and beyond it are invisible. */
  limit?: Tensor;
  /** Writes head h's result into columns [h·D, (h + 1)·D) of this tensor instead of a new [tokens, heads·D] one. */
  into?: Tensor;
  /** The kernel to take instead of the device's choice, to measure it. */
  variant?: Variant;
};

/** Channels of the widest head: more would leave a lane or a subgroup no registers. */
export const mostHeadSize = 128;

/**
 * y[i, h] = Σ_j softmax_j(q[h, i]·k[g, j]/√D)·v[g, j]; q: [heads·tokens, D], k, v: [kvHeads·tokens, D] (row =
 * head·tokens + token), q and k f32 or f16, y: [tokens, heads·D] f32.
 */
export function attention(recorder: Recorder, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const { facts } = recorder;
  const { label = "attention", heads, kvHeads, causal = false, limit } = options;
  const headSize = q.cols;
  const tokens = q.rows / heads;
  const keys = k.rows / kvHeads;
  assert(
    Number.isInteger(tokens) && Number.isInteger(keys),
    `${label}: ${q.rows} rows for ${heads} heads, ${k.rows} for ${kvHeads}`,
  );
  assert(k.cols === headSize && v.cols === headSize && v.rows === k.rows, `${label}: q, k and v differ in head size`);
  assert(heads % kvHeads === 0, `${label}: ${heads} heads on ${kvHeads} key heads`);
  const y = options.into ?? recorder.scratch(label, tokens, heads * headSize);
  const shape: AttentionShape = { tokens, heads, headSize, operands: q.dtype === "f16" ? "f16" : "f32" };
  const variant = options.variant ?? chooseVariant(recorder, attentionWorkload(shape));
  const usesMatrixUnits = variant.stem === "attention_subgroup_matrix";
  const types: Record<string, number> = usesMatrixUnits ? {} : { QK_TYPE: q.dtype === "f16" ? 2 : 0 };
  const scales = usesMatrixUnits ? tensorRowScales(recorder, v) : undefined;
  const chosen = kernel(variant.stem, {
    tunables: { ...types, GROUPS: padded8(headSize) / 8, ...variant.tunables },
    overrides: { CAUSAL: causal ? 1 : 0, HAS_LIMIT: limit ? 1 : 0 },
  });
  const work = {
    ...{ heads, queries: tokens, keys, tileQueries: variant.tileRows },
    bindableRows: Math.min(...[q, k, v, ...(scales ? [scales] : [])].map((x) => rowsPerBinding(facts, x))),
    bindableQueries: rowsPerBinding(facts, y),
    flopsPerQuery: 4 * keys * headSize,
  };
  const parts = cutAttention(work, facts.limits);
  const isInSteps = parts.some((part) => part.keys.end < keys);
  const state = isInSteps ? recorder.scratch(`${label} state`, heads, 2 * tokens) : undefined;
  const whole: Whole = {
    ...{ kernel: chosen, label, q, k, v, scales, y, state, limit, causal },
    ...{ tokens, keys, heads, perKv: heads / kvHeads, tileQueries: variant.tileRows },
  };
  for (const part of parts) dispatchPart(recorder, whole, part);
  return y;
}

/** What all dispatches of one attention have in common. */
type Whole = {
  kernel: Kernel;
  label: string;
  q: Tensor;
  k: Tensor;
  v: Tensor;
  scales: Tensor | undefined;
  y: Tensor;
  /** Maxima and sums, where keys come in several dispatches. */
  state: Tensor | undefined;
  limit: Tensor | undefined;
  causal: boolean;
  tokens: number;
  keys: number;
  heads: number;
  /** Query heads of a key head. */
  perKv: number;
  tileQueries: number;
};

function dispatchPart(recorder: Recorder, whole: Whole, part: AttentionPart): void {
  const { label, q, k, v, scales, y, state, limit, causal, tokens, keys, heads, perKv } = whole;
  const headSize = q.cols;
  const { begin: head, end: headEnd } = part.heads;
  const { begin: query, end: queryEnd } = part.queries;
  const { begin: key, end: keyEnd } = part.keys;
  const [headCount, queryCount, keyCount] = [headEnd - head, queryEnd - query, keyEnd - key];
  const kvHead = Math.floor(head / perKv);
  const kvEnd = Math.floor((headEnd - 1) / perKv) + 1;
  const bindKeys = (x: Tensor) => bindRows(x, kvHead * keys + key, (kvEnd - 1) * keys + keyEnd);
  const qs = bindRows(q, head * tokens + query, (headEnd - 1) * tokens + queryEnd);
  const [ks, vs, vScales] = [bindKeys(k), bindKeys(v), scales && bindKeys(scales)];
  const out = bindRows(y, query, queryEnd);
  const saved = state && bindRows(state);
  recorder.dispatch({
    kernel: whole.kernel,
    label,
    bindings: {
      ...{ q: qs.binding, k: ks.binding, v: vs.binding, y: out.binding },
      ...(vScales && { v_scale: vScales.binding }),
      ...(limit && { limit: bindRows(limit).binding }),
      ...(saved && { state: saved.binding }),
    },
    params: {
      ...{ queries: queryCount, first_query: query, keys: keyCount, first_key: key },
      ...{ is_first: key === 0 ? 1 : 0, is_last: keyEnd === keys ? 1 : 0 },
      ...{ head_size: headSize, first_head: head, heads_per_kv: perKv, first_kv_head: kvHead, heads },
      // Scores are exponents of two.
      scale: Math.LOG2E / Math.sqrt(headSize),
      ...{ q_offset: qs.offset, q_head_stride: tokens * q.pitch },
      ...{ k_offset: ks.offset, k_head_stride: keys * k.pitch },
      ...{ v_offset: vs.offset, v_head_stride: keys * v.pitch },
      ...{ v_scale_offset: scales && vScales ? vScales.offset / scales.pitch : 0, v_scale_head_stride: keys },
      ...{ y_offset: out.offset, y_pitch: y.pitch },
      y_cols: y.cols === heads * headSize ? y.pitch : heads * headSize,
      ...{ state_offset: saved ? saved.offset + 2 * query : 0, state_head_stride: state?.pitch ?? 0 },
    },
    workgroups: [Math.ceil(queryCount / whole.tileQueries), headCount, 1],
    flops: 4 * queryCount * keyCount * headSize * headCount * (causal ? 0.5 : 1),
    bytes: headCount * (queryCount * (rowBytes(q) + 4 * headSize) + keyCount * (rowBytes(k) + rowBytes(v))),
  });
}

/** What decides which kernel is the fastest for attention. */
export type AttentionShape = {
  /** Queries, and rows of each head. */
  tokens: number;
  heads: number;
  headSize: number;
  /** The type of q and k. */
  operands: "f32" | "f16";
};

/** What the choice for attention is called. */
function attentionName({ tokens, heads, headSize, operands }: AttentionShape): string {
  return `attention ${heads}×${headSize}, ${sizeClass(tokens)} tokens ${operands}`;
}

/** Attention as tuning sees it: every query sees every key. Samples have fewer heads or queries, but all keys. */
export function attentionWorkload(shape: AttentionShape): Workload {
  const { tokens, heads, headSize, operands } = shape;
  return {
    name: attentionName(shape),
    flops: 4 * tokens * tokens * headSize * heads,
    extents: { rows: tokens, cols: heads * headSize },
    operands,
    portable: "attention",
    variants: (facts) => attentionVariants(facts, shape),
    sample: (recorder, inputs, part, variant) => {
      const some = Math.ceil(part.cols / headSize);
      const q = inputs.tensor("q", some * part.rows, headSize, operands);
      const k = inputs.tensor("k", some * tokens, headSize, operands);
      const v = inputs.tensor("v", some * tokens, headSize);
      return attention(recorder, q, k, v, { heads: some, kvHeads: some, variant });
    },
  };
}

/** The kernels that compute attention on this device, the built-in choice first. */
function attentionVariants(facts: DeviceFacts, { tokens, headSize, operands }: AttentionShape): Variant[] {
  assert(headSize <= mostHeadSize, `heads of ${headSize} channels: at most ${mostHeadSize}`);
  const GROUPS = padded8(headSize) / 8;
  const variants: Variant[] = [];
  // Matrix units multiply operands in f16.
  if (operands === "f16" && tokens >= facts.limits.matrixRows) {
    variants.push(...attentionMatrixVariants(facts, GROUPS));
  }
  if (usesSubgroupKernels(facts)) {
    const SUBGROUP_SIZE = facts.subgroupSize;
    // A register of 16 lanes takes twice the memory, and with it the time to compile.
    const QUERIES = SUBGROUP_SIZE > 8 ? 2 : 4;
    const tunables = { QUERIES, SUBGROUP_SIZE };
    const tileRows = QUERIES * SUBGROUP_SIZE;
    variants.push({ stem: "attention_subgroup_panel", tunables, tileRows, tileCols: headSize });
  }
  // Invocations share a query by fours of keys and of channels, so a narrow head would leave some of them idle.
  const KEYS = GROUPS > 4 ? 64 : 32;
  variants.push({ stem: "attention", tunables: { QUERIES: 64, KEYS }, tileRows: 64, tileCols: headSize });
  return variants;
}
