// Attention of many heads of up to 128 channels (transformer, text encoder), with streaming softmax; one wide head is in
// attention-wide.ts. Splits by heads and queries where ranges exceed the binding limit or a dispatch would run too long, and by
// keys where one head's keys exceed it: then maxima and sums pass from dispatch to dispatch in a state tensor.

import { assert } from "../../errors.js";
import { bindRows, rowsPerBinding } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { padded8, rowBytes, type Tensor } from "../gpu/tensor.js";
import { usesSubgroupKernels, wholeTiles } from "./matmul.js";
import { attentionMatrixVariants } from "./matrix-tiles.js";
import { tensorRowScales } from "./row-scale.js";
import { chooseVariant, sizeClass, type Variant, type Workload } from "./variants.js";

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

/** Scores are exponents of two, so the scale carries log2(e). */
const log2e = Math.LOG2E;

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
  const perKv = heads / kvHeads;
  const shape: AttentionShape = { tokens, heads, headSize, operands: q.dtype === "f16" ? "f16" : "f32" };
  const variant = options.variant ?? chooseVariant(recorder, attentionWorkload(shape));
  const tileQueries = variant.tileRows;
  const usesMatrixUnits = variant.stem === "attention_subgroup_matrix";
  const types: Record<string, number> = usesMatrixUnits ? {} : { QK_TYPE: q.dtype === "f16" ? 2 : 0 };
  const scales = usesMatrixUnits ? tensorRowScales(recorder, v) : undefined;
  const chosen = kernel(variant.stem, {
    tunables: { ...types, GROUPS: padded8(headSize) / 8, ...variant.tunables },
    overrides: { CAUSAL: causal ? 1 : 0, HAS_LIMIT: limit ? 1 : 0 },
  });

  const flopsPerQuery = 4 * keys * headSize;
  const bindable = Math.min(...[q, k, v, ...(scales ? [scales] : [])].map((x) => rowsPerBinding(facts, x)));
  const keyStep = Math.min(keys, bindable);
  const queryStep = Math.min(
    tokens,
    bindable,
    rowsPerBinding(facts, y),
    wholeTiles(facts.limits.dispatchFlops / flopsPerQuery, tileQueries),
  );
  // Several heads in one dispatch only while all of their rows fit into one binding.
  const headStep =
    keyStep < keys || queryStep < tokens
      ? 1
      : Math.max(
          1,
          Math.min(
            heads,
            Math.floor(bindable / Math.max(tokens, keys)),
            Math.floor(facts.limits.dispatchFlops / (flopsPerQuery * tokens)),
          ),
        );
  const state = keyStep < keys ? recorder.scratch(`${label} state`, heads, 2 * tokens) : undefined;
  for (let head = 0; head < heads; head += headStep) {
    const headEnd = Math.min(head + headStep, heads);
    const kvHead = Math.floor(head / perKv);
    const kvEnd = Math.floor((headEnd - 1) / perKv) + 1;
    for (let query = 0; query < tokens; query += queryStep) {
      const queryEnd = Math.min(query + queryStep, tokens);
      for (let key = 0; key < keys; key += keyStep) {
        const keyEnd = Math.min(key + keyStep, keys);
        const qs = bindRows(q, head * tokens + query, (headEnd - 1) * tokens + queryEnd);
        const ks = bindRows(k, kvHead * keys + key, (kvEnd - 1) * keys + keyEnd);
        const vs = bindRows(v, kvHead * keys + key, (kvEnd - 1) * keys + keyEnd);
        const vScales = scales && bindRows(scales, kvHead * keys + key, (kvEnd - 1) * keys + keyEnd);
        const out = bindRows(y, query, queryEnd);
        const saved = state ? bindRows(state) : undefined;
        recorder.dispatch({
          kernel: chosen,
          label,
          bindings: {
            q: qs.binding,
            k: ks.binding,
            v: vs.binding,
            ...(vScales && { v_scale: vScales.binding }),
            y: out.binding,
            ...(limit && { limit: bindRows(limit).binding }),
            ...(saved && { state: saved.binding }),
          },
          params: {
            queries: queryEnd - query,
            first_query: query,
            keys: keyEnd - key,
            first_key: key,
            is_first: key === 0 ? 1 : 0,
            is_last: keyEnd === keys ? 1 : 0,
            head_size: headSize,
            first_head: head,
            heads_per_kv: perKv,
            first_kv_head: kvHead,
            scale: log2e / Math.sqrt(headSize),
            q_offset: qs.offset,
            q_head_stride: tokens * q.pitch,
            k_offset: ks.offset,
            k_head_stride: keys * k.pitch,
            v_offset: vs.offset,
            v_head_stride: keys * v.pitch,
            v_scale_offset: scales && vScales ? vScales.offset / scales.pitch : 0,
            v_scale_head_stride: keys,
            y_offset: out.offset,
            y_pitch: y.pitch,
            y_cols: y.cols === heads * headSize ? y.pitch : heads * headSize,
            heads,
            state_offset: saved ? saved.offset + 2 * query : 0,
            state_head_stride: state?.pitch ?? 0,
          },
          workgroups: [Math.ceil((queryEnd - query) / tileQueries), headEnd - head, 1],
          flops: 4 * (queryEnd - query) * (keyEnd - key) * headSize * (headEnd - head) * (causal ? 0.5 : 1),
          bytes:
            (headEnd - head) *
            ((queryEnd - query) * (rowBytes(q) + 4 * headSize) + (keyEnd - key) * (rowBytes(k) + rowBytes(v))),
        });
      }
    }
  }
  return y;
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
export function attentionName({ tokens, heads, headSize, operands }: AttentionShape): string {
  return `attention ${heads}×${headSize}, ${sizeClass(tokens)} tokens ${operands}`;
}

/** Attention as tuning sees it: every query sees every key, also in samples, which have fewer heads or queries. */
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
export function attentionVariants(facts: DeviceFacts, { tokens, headSize, operands }: AttentionShape): Variant[] {
  assert(headSize <= mostHeadSize, `heads of ${headSize} channels: at most ${mostHeadSize}`);
  const GROUPS = padded8(headSize) / 8;
  const variants: Variant[] = [];
  // Operands in f16 are what matrix units multiply.
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
  // Invocations share a query by fours of keys and of channels: more than a narrow head has would idle.
  const KEYS = GROUPS > 4 ? 64 : 32;
  variants.push({ stem: "attention", tunables: { QUERIES: 64, KEYS }, tileRows: 64, tileCols: headSize });
  return variants;
}
