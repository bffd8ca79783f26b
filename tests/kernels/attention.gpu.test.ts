// Attention against f64: joint, causal with a key limit and grouped heads.

import { beforeAll, describe, expect, it } from "vitest";
import { kernel } from "../../src/engine/gpu/kernel.js";
import { padded8 } from "../../src/engine/gpu/tensor.js";
import { attention, attentionWorkload, mostHeadSize } from "../../src/engine/ops/attention.js";
import { type Variant, variantName } from "../../src/engine/ops/variants.js";
import { createGpu } from "../../src/node/dawn.js";
import { configurations, opened, recordWith, roundsOperands, type TunedDevice, withEach } from "./linear.js";
import { nmse, nmseBound, normal, runRecorded, stored } from "./reference.js";

type Case = {
  /** Query heads, key heads, tokens, head size. */
  shape: [heads: number, kvHeads: number, tokens: number, headSize: number];
  qk?: "f32" | "f16";
  causal?: boolean;
  limit?: number;
  /** Columns of the output beyond the heads'. */
  more?: number;
  spread?: number;
  /** Rows of v are of sizes from 1 / magnitude to magnitude, in turn. */
  magnitude?: number;
};

// Drivers for processors compile the portable kernel for a quarter of a minute, for each number of groups of eight
// channels, dtype, mask and limit anew: what other cases have compiled already costs next to nothing.
const cases: Case[] = [
  { shape: [1, 1, 1, 2] },
  { shape: [4, 4, 100, 32] },
  { shape: [5, 1, 61, 16], causal: true, limit: 17 },
  { shape: [7, 1, 130, 16], causal: true, limit: 130 },
  { shape: [4, 2, 75, 16], causal: true, limit: 1 },
  { shape: [3, 3, 40, 10], more: 22 },
  // The padding of a row of y is wider than a head's own.
  { shape: [3, 3, 20, 14] },
  { shape: [3, 3, 20, 30] },
  { shape: [3, 3, 20, 14], qk: "f16" },
  { shape: [2, 2, 33, 80], qk: "f16" },
  { shape: [2, 1, 150, 128] },
  { shape: [2, 2, 90, 32], spread: 12 },
  { shape: [1, 1, 600, 24], qk: "f16", more: 8 },
  { shape: [1, 1, 1, 2], qk: "f16" },
  { shape: [4, 4, 100, 32], qk: "f16" },
  { shape: [5, 1, 61, 16], qk: "f16", causal: true, limit: 17 },
  { shape: [4, 2, 175, 32], qk: "f16", causal: true },
  { shape: [3, 3, 40, 10], qk: "f16", more: 22 },
  { shape: [2, 1, 150, 128], qk: "f16" },
  { shape: [2, 2, 190, 32], qk: "f16", spread: 12 },
  { shape: [2, 2, 90, 24], qk: "f16", magnitude: 1e9 },
  { shape: [1, 1, 130, 40], qk: "f16", causal: true, spread: 3, magnitude: 30 },
];

function reference(q: Float32Array, k: Float32Array, v: Float32Array, c: Case): Float64Array {
  const [heads, kvHeads, tokens, size] = c.shape;
  const pitch = heads * size + (c.more ?? 0);
  const y = new Float64Array(tokens * pitch);
  for (let h = 0; h < heads; h++) {
    const g = Math.floor(h / (heads / kvHeads));
    for (let i = 0; i < tokens; i++) {
      const end = Math.min(c.causal ? i + 1 : tokens, c.limit ?? tokens);
      const scores = Array.from({ length: end }, (_, j) => {
        let s = 0;
        for (let d = 0; d < size; d++)
          s += (q[(h * tokens + i) * size + d] as number) * (k[(g * tokens + j) * size + d] as number);
        return s / Math.sqrt(size);
      });
      const top = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      const weights = scores.map((s) => Math.exp(s - top));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let d = 0; d < size; d++) {
        let sum = 0;
        for (let j = 0; j < end; j++) sum += (weights[j] as number) * (v[(g * tokens + j) * size + d] as number);
        y[i * pitch + h * size + d] = sum / total;
      }
    }
  }
  return y;
}

it("the portable kernel needs no more than every WebGPU device has", async () => {
  const device = await opened({ withoutFeatures: ["subgroups"] });
  const adapter = await (await createGpu()).requestAdapter();
  const least = (await adapter?.requestDevice()) as GPUDevice;
  for (const headSize of [2, 32, 40, 80, mostHeadSize]) {
    const shape = { tokens: 100, heads: 1, headSize, operands: "f32" } as const;
    const { stem, tunables } = attentionWorkload(shape)
      .variants(device.device)
      .find(({ stem }) => stem === "attention")!;
    const { code } = kernel(stem, { tunables: { ...tunables, GROUPS: padded8(headSize) / 8 } }).layout;
    least.pushErrorScope("validation");
    const module = least.createShaderModule({ code });
    least.createComputePipeline({ layout: "auto", compute: { module, entryPoint: stem } });
    expect((await least.popErrorScope())?.message, `heads of ${headSize}`).toBeUndefined();
  }
});

it("heads are of at most 128 channels", async () => {
  const { device } = await opened({});
  const shape = { tokens: 100, heads: 1, headSize: 129, operands: "f32" } as const;
  expect(() => attentionWorkload(shape).variants(device)).toThrow("heads of 129 channels: at most 128");
});

describe.each(configurations)("attention on %s", (_, open) => {
  let test: TunedDevice;
  beforeAll(async () => {
    test = await open();
  });

  const run = async (c: Case, variant: Variant) => {
    const [heads, kvHeads, tokens, size] = c.shape;
    const { qk = "f32", causal = false, more = 0, spread = 1, magnitude = 1 } = c;
    const q = normal(1, heads * tokens * size, 0, spread).map((x) => stored(x, qk));
    const k = normal(2, kvHeads * tokens * size, 0, spread).map((x) => stored(x, qk));
    const v = normal(3, kvHeads * tokens * size).map(
      (x, i) => x * magnitude ** (((Math.floor(i / size) * 7) % 11) / 5 - 1),
    );
    const { y } = await runRecorded(test, (recorder, inputs) => {
      const around = { rowsBefore: 1, rowsAfter: 1 };
      const qs = inputs.tensor("q", heads * tokens, size, q, { dtype: qk, ...around });
      const ks = inputs.tensor("k", kvHeads * tokens, size, k, { dtype: qk, ...around });
      const vs = inputs.tensor("v", kvHeads * tokens, size, v, around);
      const limit = c.limit === undefined ? undefined : inputs.tensor("limit", 1, 1, [c.limit], { dtype: "u32" });
      const width = heads * size + more;
      const into = more ? inputs.tensor("into", tokens, width, new Float32Array(tokens * width)) : undefined;
      const options = { heads, kvHeads, causal, limit, into };
      return { y: recordWith(variant, recorder, () => attention(recorder, qs, ks, vs, options)) };
    });
    return nmse(y.values, reference(q, k, v, c));
  };

  // Drivers for processors compile matrices of wide heads for a minute.
  it.each(cases)(
    "$shape qk $qk causal $causal limit $limit",
    async (c) => {
      const [heads, , tokens, headSize] = c.shape;
      const variants = attentionWorkload({ tokens, heads, headSize, operands: c.qk ?? "f32" }).variants(test.device);
      await withEach(test, variants, async (variant) => {
        const bound = roundsOperands(variant) ? nmseBound.f16 : nmseBound.f32;
        expect(await run(c, variant), variantName(variant)).toBeLessThanOrEqual(bound);
      });
    },
    300_000,
  );

  it("shows a value that is infinite to every query that sees it", async () => {
    const [tokens, size] = [40, 32];
    const [q, k, v] = [1, 2, 3].map((seed) => normal(seed, tokens * size)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
    v[20 * size + 7] = Number.NEGATIVE_INFINITY;
    const variants = attentionWorkload({ tokens, heads: 1, headSize: size, operands: "f16" }).variants(test.device);
    await withEach(test, variants, async (variant) => {
      const { y } = await runRecorded(test, (recorder, inputs) => {
        const [qs, ks] = [q, k].map((x, i) => inputs.tensor("qk"[i] as string, tokens, size, x, { dtype: "f16" }));
        const vs = inputs.tensor("v", tokens, size, v);
        const options = { heads: 1, kvHeads: 1, causal: true };
        return { y: recordWith(variant, recorder, () => attention(recorder, qs!, ks!, vs, options)) };
      });
      const shown = Array.from({ length: tokens }, (_, i) => !Number.isFinite(y.values[i * size + 7]));
      expect(shown.slice(20), variantName(variant)).toEqual(Array(20).fill(true));
    });
  });
});
