// split_heads against the formulas of RMSNorm and rotary positions. DiT RoPE rotates adjacent pairs, Qwen3's rotates
// halves; the tokens of one stream go between those of others, which must stay as they were.

import { describe, expect, test } from "vitest";
import { splitHeads } from "../../src/engine/ops/heads.js";
import { type TestDevice, testDevice } from "../gpu.js";
import * as formulas from "./formulas.js";
import {
  benches,
  firstDifference,
  nmse,
  nmseBound,
  normal,
  type Result,
  runRecorded,
  smallDevice,
} from "./reference.js";

type Case = {
  s: number;
  tokens: number;
  tokenOffset: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  /** Further columns after v, as in a block that projects its MLP with the same matrix. */
  more: number;
  ropeStyle: "interleaved" | "halves";
  dtype: "f32" | "f16";
};

const shape = { s: 7, tokens: 12, tokenOffset: 3, more: 0 };
const cases: Case[] = [
  {
    s: 1,
    tokens: 1,
    tokenOffset: 0,
    heads: 1,
    kvHeads: 1,
    headDim: 2,
    more: 0,
    ropeStyle: "interleaved",
    dtype: "f32",
  },
  { ...shape, heads: 3, kvHeads: 3, headDim: 10, ropeStyle: "interleaved", dtype: "f32" },
  { ...shape, heads: 4, kvHeads: 2, headDim: 10, ropeStyle: "halves", dtype: "f32", more: 5 },
  { ...shape, heads: 3, kvHeads: 3, headDim: 10, ropeStyle: "halves", dtype: "f16" },
  { ...shape, heads: 5, kvHeads: 5, headDim: 16, ropeStyle: "interleaved", dtype: "f32", more: 12 },
  { ...shape, heads: 4, kvHeads: 1, headDim: 32, ropeStyle: "halves", dtype: "f32" },
  { ...shape, heads: 2, kvHeads: 2, headDim: 32, ropeStyle: "interleaved", dtype: "f16" },
  { ...shape, heads: 2, kvHeads: 2, headDim: 40, ropeStyle: "halves", dtype: "f32" },
  { ...shape, heads: 2, kvHeads: 1, headDim: 80, ropeStyle: "halves", dtype: "f16" },
  { ...shape, heads: 2, kvHeads: 2, headDim: 80, ropeStyle: "interleaved", dtype: "f32" },
  {
    s: 40,
    tokens: 200,
    tokenOffset: 160,
    heads: 6,
    kvHeads: 6,
    headDim: 128,
    more: 256,
    ropeStyle: "interleaved",
    dtype: "f32",
  },
  {
    s: 150,
    tokens: 150,
    tokenOffset: 0,
    heads: 8,
    kvHeads: 2,
    headDim: 128,
    more: 0,
    ropeStyle: "halves",
    dtype: "f16",
  },
];

const eps = 1e-6;

function data(c: Case) {
  const angles = normal(4, (c.tokens * c.headDim) / 2, 0, 3);
  return {
    cols: (c.heads + 2 * c.kvHeads) * c.headDim + c.more,
    qkv: normal(1, c.s * ((c.heads + 2 * c.kvHeads) * c.headDim + c.more), 0.2, 2),
    normQ: normal(2, c.headDim, 1, 0.3),
    normK: normal(3, c.headDim, 1, 0.3),
    cos: angles.map(Math.cos),
    sin: angles.map(Math.sin),
  };
}

/** What the tensors hold beforehand: small integers, exact in f16. */
const before = (rows: number, cols: number) => Float32Array.from({ length: rows * cols }, (_, i) => (i % 97) - 48);

function run(bench: TestDevice, c: Case) {
  const { cols, qkv, normQ, normK, cos, sin } = data(c);
  const { heads, kvHeads, headDim, tokens, tokenOffset, ropeStyle, dtype } = c;
  return runRecorded(bench, (recorder, inputs) => {
    const target = (name: string, rows: number, dtype: "f32" | "f16") =>
      inputs.tensor(name, rows, headDim, before(rows, headDim), { dtype, rowsBefore: 1, rowsAfter: 1 });
    const x = inputs.tensor("qkv", c.s, cols, qkv, { rowsBefore: 1, rowsAfter: 1 });
    const q = target("q", heads * tokens, dtype);
    const k = target("k", kvHeads * tokens, dtype);
    const v = target("v", kvHeads * tokens, "f32");
    const table = (name: string, values: Float32Array) => inputs.tensor(name, tokens, headDim / 2, values);
    splitHeads(recorder, x, {
      ...{ q, k, v, heads, kvHeads, headDim, tokens, tokenOffset, eps, ropeStyle },
      normQ: inputs.vector("normQ", normQ),
      normK: inputs.vector("normK", normK),
      rope: { cos: table("cos", cos), sin: table("sin", sin) },
    });
    return { q, k, v };
  });
}

/** The rows that were to be written as one array, and those that were not as they should still be. */
function expected(c: Case, column: number, heads: number, norm?: Float32Array) {
  const { qkv, cols, cos, sin } = data(c);
  const { s, tokens, tokenOffset, headDim, ropeStyle } = c;
  const y = Float64Array.from(before(heads * tokens, headDim));
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < s; i++) {
      const t = tokenOffset + i;
      const row = qkv.subarray(i * cols + column + h * headDim).subarray(0, headDim);
      const angles = (table: Float32Array) => table.subarray((t * headDim) / 2, ((t + 1) * headDim) / 2);
      const turned = norm
        ? formulas.rope(formulas.rmsNorm(row, 1, headDim, norm, eps), angles(cos), angles(sin), ropeStyle)
        : row;
      y.set(turned, (h * tokens + t) * headDim);
    }
  }
  return y;
}

/** Whether tokens outside of the stream hold what they held. */
function keepsOthers(c: Case, { rows, values }: Result): boolean {
  const held = before(rows, c.headDim);
  for (let r = 0; r < rows; r++) {
    const token = r % c.tokens;
    if (token >= c.tokenOffset && token < c.tokenOffset + c.s) continue;
    for (let d = 0; d < c.headDim; d++) if (values[r * c.headDim + d] !== held[r * c.headDim + d]) return false;
  }
  return true;
}

describe.each(benches)("split_heads on $on", ({ open }) => {
  test.each(cases)("$s of $tokens tokens, $heads/$kvHeads heads of $headDim, $ropeStyle to $dtype", async (c) => {
    const { q, k, v } = await run(await open(), c);
    const { normQ, normK } = data(c);
    const bound = nmseBound[c.dtype];
    expect(nmse(q.values, expected(c, 0, c.heads, normQ))).toBeLessThanOrEqual(bound);
    expect(nmse(k.values, expected(c, c.heads * c.headDim, c.kvHeads, normK))).toBeLessThanOrEqual(bound);
    expect(firstDifference(v.values, expected(c, (c.heads + c.kvHeads) * c.headDim, c.kvHeads))).toBeUndefined();
    expect([q, k, v].map((t) => keepsOthers(c, t))).toEqual([true, true, true]);
  });
});

test.each(cases)(
  "split_heads with $heads heads of $headDim, $ropeStyle to $dtype: small bindings change no bit",
  async (c) => {
    const [whole, split] = [await run(await testDevice(), c), await run(await smallDevice(), c)];
    for (const name of ["q", "k", "v"] as const)
      expect(firstDifference(split[name].words, whole[name].words)).toBeUndefined();
  },
);
