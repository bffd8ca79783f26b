// Attention's inputs: the projections' rows [token, q | k | v] become head-major q, k and v, with the heads' RMSNorm
// and the rotary positions applied on the way. Knows no model: which pairs rotate is an option.
// Writes the tokens of one stream into the joint sequence, so that text and image fill the same tensors in turn.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor, tensorBytes, tensorOn } from "../gpu/tensor.js";
import type { Vector } from "../weights/upload.js";
import { cutHeads, foldWorkgroups, rowsPerBinding, rowWorkgroup } from "./cut.js";
import { bindVector } from "./parameters.js";

export type SplitHeadsOptions = {
  label?: string;
  /** Written: [heads·tokens, D] f32 or f16, row = head·tokens + token. */
  q: Tensor;
  /** Written: [kvHeads·tokens, D] f32 or f16. */
  k: Tensor;
  /** Written: [kvHeads·tokens, D] f32. */
  v: Tensor;
  /** Where the S tokens begin in the joint sequence. */
  tokenOffset: number;
  /** Tokens of the joint sequence. */
  tokens: number;
  heads: number;
  kvHeads: number;
  /** D, even. */
  headDim: number;
  /** [D]: RMSNorm weights of q and of k. */
  normQ: Vector;
  normK: Vector;
  eps: number;
  /** [tokens, D/2] f32 each: cosines and sines of the joint sequence's positions. */
  rope: { cos: Tensor; sin: Tensor };
  /** `interleaved` rotates the pairs (2i, 2i + 1), as FLUX.2 does; `halves` (i, i + D/2), as Qwen3 does. */
  ropeStyle: "interleaved" | "halves";
};

/** Rows, width and type of q, k and v; v is always f32. */
export type HeadShape = { tokens: number; heads: number; kvHeads: number; headDim: number; dtype: "f32" | "f16" };

/** q, k and v in one storage: one large storage shares a place with others more easily than three small ones. */
export function headTensors(
  recorder: Recorder,
  { tokens, heads, kvHeads, headDim, dtype }: HeadShape,
  label = "q | k | v",
): { q: Tensor; k: Tensor; v: Tensor } {
  const qBytes = tensorBytes(heads * tokens, headDim, dtype);
  const kBytes = tensorBytes(kvHeads * tokens, headDim, dtype);
  const storage = recorder.scratchBytes(label, qBytes + kBytes + tensorBytes(kvHeads * tokens, headDim));
  return {
    q: tensorOn(storage, label, heads * tokens, headDim, dtype),
    k: { ...tensorOn(storage, label, kvHeads * tokens, headDim, dtype), byteOffset: qBytes },
    v: { ...tensorOn(storage, label, kvHeads * tokens, headDim), byteOffset: qBytes + kBytes },
  };
}

/**
 * q[h, t] = rope_t(rms(qkv[s, h·D…]; normQ)), k likewise from column heads·D on, v[h, t] = qkv[s, (heads + kvHeads + h)·D…];
 * t = tokenOffset + s. qkv: [S, ≥ (heads + 2·kvHeads)·D] f32. Other tokens of q, k and v are left as they are.
 */
export function splitHeads(recorder: Recorder, qkv: Tensor, options: SplitHeadsOptions): void {
  const { label = "split_heads", q, k, v, heads, kvHeads, headDim, tokens, tokenOffset, normQ, normK } = options;
  assert(headDim % 2 === 0, `${label}: heads of ${headDim} channels, expected an even number`);
  assert(qkv.dtype === "f32" && v.dtype === "f32", `${label}: qkv is ${qkv.dtype}, v ${v.dtype}, expected f32`);
  assert(
    qkv.cols >= (heads + 2 * kvHeads) * headDim,
    `${label}: ${qkv.cols} columns for ${heads} + 2·${kvHeads} heads of ${headDim}`,
  );
  assert(
    0 <= tokenOffset && tokenOffset + qkv.rows <= tokens,
    `${label}: tokens [${tokenOffset}, ${tokenOffset + qkv.rows}) of ${tokens}`,
  );
  for (const table of [options.rope.cos, options.rope.sin]) {
    assert(
      table.rows === tokens && table.cols === headDim / 2 && table.dtype === "f32",
      `${label}: "${table.label}" is [${table.rows}, ${table.cols}] ${table.dtype}, expected [${tokens}, ${headDim / 2}] f32`,
    );
  }
  splitPart(recorder, qkv, { ...options, label, y: q, column: 0, partHeads: heads, norm: normQ });
  splitPart(recorder, qkv, { ...options, label, y: k, column: heads * headDim, partHeads: kvHeads, norm: normK });
  splitPart(recorder, qkv, { ...options, label, y: v, column: (heads + kvHeads) * headDim, partHeads: kvHeads });
}

type Part = SplitHeadsOptions & { label: string; y: Tensor; column: number; partHeads: number; norm?: Vector };

/** One of q, k and v; without a norm the heads are copied. */
function splitPart(recorder: Recorder, qkv: Tensor, part: Part): void {
  const { facts } = recorder;
  const { label, y, column, partHeads, norm, headDim, tokens, tokenOffset, eps, rope, ropeStyle } = part;
  assert(
    y.rows === partHeads * tokens && y.cols === headDim && y.dtype !== "u32",
    `${label}: "${y.label}" is [${y.rows}, ${y.cols}] ${y.dtype}, expected [${partHeads * tokens}, ${headDim}]`,
  );
  assert(!norm || norm.length === headDim, `${label}: heads of ${headDim} channels, the norm has ${norm?.length}`);
  const workgroup = rowWorkgroup(facts, 16, 8);
  const chosen = kernel("split_heads", {
    overrides: {
      ...workgroup,
      ALIGNED: headDim % 8 === 0 ? 1 : 0,
      HALVES: norm && ropeStyle === "halves" ? 1 : 0,
      COPY: norm ? 0 : 1,
      Y_F16: y.dtype === "f16" ? 1 : 0,
    },
  });
  const flopsPerHead = norm ? 8 * headDim : headDim;
  const work = {
    ...{ rows: qkv.rows, heads: partHeads, tokens, flopsPerHead },
    bindableTokens: Math.min(rowsPerBinding(facts, qkv), rowsPerBinding(facts, rope.cos)),
    bindableRows: rowsPerBinding(facts, y),
  };
  for (const { rows: band, heads } of cutHeads(work, facts.limits)) {
    const rows = band.end - band.begin;
    const count = heads.end - heads.begin;
    const [firstToken, endToken] = [tokenOffset + band.begin, tokenOffset + band.end];
    const input = bindRows(qkv, band.begin, band.end);
    const cos = bindRows(rope.cos, firstToken, endToken);
    const sin = bindRows(rope.sin, firstToken, endToken);
    const output = bindRows(y, heads.begin * tokens + firstToken, (heads.end - 1) * tokens + endToken);
    recorder.dispatch({
      kernel: chosen,
      label,
      bindings: {
        x: input.binding,
        y: output.binding,
        ...(norm && { weight: bindVector(norm), cos: cos.binding, sin: sin.binding }),
      },
      params: {
        ...{ rows, heads: count, head_size: headDim },
        ...{ x_pitch: qkv.pitch, x_offset: input.offset + column + heads.begin * headDim },
        ...{ rope_pitch: rope.cos.pitch, cos_offset: cos.offset, sin_offset: sin.offset },
        ...{ y_pitch: y.pitch, y_offset: output.offset, y_head_stride: tokens * y.pitch },
        eps,
      },
      workgroups: foldWorkgroups((rows * count) / workgroup.ROWS_PER_WORKGROUP),
      flops: rows * count * flopsPerHead,
      bytes: rows * count * (4 * headDim + rowBytes(y)) + (norm ? rows * 2 * rowBytes(rope.cos) : 0),
    });
  }
}
