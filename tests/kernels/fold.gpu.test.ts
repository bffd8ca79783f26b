// Dispatches of more than 65535 workgroups are folded into two dimensions. That takes tensors of gigabytes, so here
// three workgroups are already too many for one row: kernels that number their workgroups wrongly, or do not skip
// those past the end, give other results.

import { expect, test, vi } from "vitest";
import type { Recorder } from "../../src/engine/gpu/recorder.js";
import type { Tensor } from "../../src/engine/gpu/tensor.js";
import { eulerStep, guidance, silu } from "../../src/engine/ops/elementwise.js";
import { splitHeads } from "../../src/engine/ops/heads.js";
import { health, healthWords } from "../../src/engine/ops/health.js";
import { packLatents, unpackLatents } from "../../src/engine/ops/latents.js";
import { groupNorm, layerNormModulate, rmsNorm } from "../../src/engine/ops/norm.js";
import { rgb8 } from "../../src/engine/ops/pixels.js";
import { testDevice } from "../gpu.js";
import { firstDifference, flippedDevice, type Inputs, normal, runRecorded } from "./reference.js";

const workgroups = vi.hoisted(() => ({ perRow: 65535, folded: 0 }));

vi.mock("../../src/engine/ops/cut.js", async (importOriginal) => {
  const actual = await importOriginal<typeof import("../../src/engine/ops/cut.js")>();
  const foldWorkgroups = (count: number) => {
    const whole = Math.ceil(count);
    if (whole > workgroups.perRow) workgroups.folded += 1;
    return [Math.min(whole, workgroups.perRow), Math.ceil(whole / workgroups.perRow), 1];
  };
  return { ...actual, foldWorkgroups };
});

const [rows, cols] = [1024, 24];

type Operation = (recorder: Recorder, inputs: Inputs, x: Tensor) => Tensor;

const operations: Record<string, Operation> = {
  rmsNorm: (r, inputs, x) => rmsNorm(r, x, inputs.vector("weight", normal(2, cols)), { eps: 1e-6, dtype: "f32" }),
  layerNormModulate: (r, inputs, x) => {
    const m = inputs.tensor("modulation", 1, 2 * cols, normal(2, 2 * cols));
    return layerNormModulate(r, x, m, { scaleAt: 0, shiftAt: cols, eps: 1e-6, dtype: "f16" });
  },
  groupNorm: (r, inputs, x) => {
    const [weight, bias] = [inputs.vector("weight", normal(2, cols)), inputs.vector("bias", normal(3, cols))];
    return groupNorm(r, x, weight, bias, { groups: 24, eps: 1e-6, silu: true });
  },
  splitHeads: (r, inputs, x) => {
    const table = inputs.tensor("table", rows, 4, normal(2, rows * 4));
    const head = (name: string) => inputs.tensor(name, rows, 8, new Float32Array(rows * 8));
    const [q, k, v] = [head("q"), head("k"), head("v")];
    const norm = inputs.vector("norm", normal(3, 8));
    splitHeads(r, x, {
      ...{ q, k, v, heads: 1, kvHeads: 1, headDim: 8, tokens: rows, tokenOffset: 0, eps: 1e-6 },
      ...{ normQ: norm, normK: norm, rope: { cos: table, sin: table }, ropeStyle: "halves" },
    });
    return q;
  },
  silu: (r, _, x) => silu(r, x),
  guidance: (r, inputs, x) => {
    guidance(
      r,
      x,
      inputs.tensor("negative", rows, cols, normal(2, rows * cols)),
      inputs.tensor("step", 1, 8, normal(3, 8)),
    );
    return x;
  },
  eulerStep: (r, inputs, x) => {
    eulerStep(
      r,
      x,
      inputs.tensor("velocity", rows, cols, normal(2, rows * cols)),
      inputs.tensor("step", 1, 8, normal(3, 8)),
    );
    return x;
  },
  packLatents: (r, inputs, x) => {
    const statistics = inputs.vector("statistics", normal(2, 80).map(Math.abs));
    return packLatents(r, x, statistics, statistics, { h: 16, w: 16, channels: 20, eps: 1e-4 });
  },
  unpackLatents: (r, inputs, x) => {
    const statistics = inputs.vector("statistics", normal(2, cols).map(Math.abs));
    return unpackLatents(r, x, statistics, statistics, { h: 32, w: 32, channels: cols / 4, eps: 1e-4 });
  },
  rgb8: (r, inputs) => rgb8(r, inputs.tensor("pixels", 2560, 3, normal(2, 7680))),
  health: (r, inputs) => {
    // Large enough for several workgroups of parts.
    const many = inputs.tensor("many", 2000, 256, normal(2, 2000 * 256));
    const result = inputs.tensor("result", 1, healthWords, Array(8).fill(0), { dtype: "u32" });
    health(r, many, result, 0);
    return result;
  },
};

test.each(Object.keys(operations))("%s in folded workgroups", async (name) => {
  for (const bench of [await testDevice(), await flippedDevice()]) {
    const run = async (perRow: number) => {
      workgroups.perRow = perRow;
      workgroups.folded = 0;
      const { y } = await runRecorded(bench, (recorder, inputs) => ({
        y: (operations[name] as Operation)(recorder, inputs, inputs.tensor("x", rows, cols, normal(1, rows * cols))),
      }));
      return y.words;
    };
    const plain = await run(65535);
    expect(workgroups.folded).toBe(0);
    const folded = await run(3);
    expect(workgroups.folded).toBeGreaterThan(0);
    expect(firstDifference(folded, plain)).toBeUndefined();
  }
});
