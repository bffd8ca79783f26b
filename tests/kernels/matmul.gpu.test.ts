// The matrix product against f64, in every dtype, with every epilogue, on every choice of kernel and split.

import { beforeAll, describe, expect, it } from "vitest";
import { sliceRows } from "../../src/engine/gpu/tensor.js";
import { matmul } from "../../src/engine/ops/matmul.js";
import type { TestDevice } from "../gpu.js";
import { configurations, storedWeight, type WeightDtype, weightOf } from "./linear.js";
import { nmse, nmseBound, normal, runRecorded, stored } from "./reference.js";

type Case = {
  shape: [rows: number, cols: number, k: number];
  a?: "f32" | "f16";
  weight?: WeightDtype;
  epilogue?: "none" | "bias" | "gate" | "accumulate" | "gated residual" | "silu gate" | "column";
};

const cases: Case[] = [
  { shape: [1, 1, 1] },
  { shape: [1, 768, 256] },
  { shape: [3, 5, 7], epilogue: "bias" },
  { shape: [13, 33, 56], weight: "f16" },
  { shape: [65, 129, 80], weight: "f32" },
  { shape: [64, 64, 64] },
  { shape: [512, 192, 64] },
  { shape: [100, 50, 10], epilogue: "silu gate", weight: "f32" },
  { shape: [77, 160, 64], epilogue: "silu gate" },
  { shape: [130, 384, 128], epilogue: "silu gate", a: "f16" },
  { shape: [33, 70, 24], epilogue: "silu gate", weight: "f16" },
  { shape: [24, 80, 320], epilogue: "gated residual" },
  { shape: [9, 17, 40], epilogue: "accumulate", weight: "f16" },
  { shape: [31, 40, 48], epilogue: "gate", weight: "f32" },
  { shape: [19, 31, 104], epilogue: "column" },
  { shape: [40, 50, 72], a: "f16", weight: "f16", epilogue: "gated residual" },
  { shape: [70, 3072, 300], weight: "bf16" },
  { shape: [5, 640, 3072], a: "f16", epilogue: "bias" },
];

const dot = (a: Float32Array, at: number, w: Float32Array, row: number, k: number) => {
  let sum = 0;
  for (let i = 0; i < k; i++) sum += (a[at * k + i] as number) * (w[row * k + i] as number);
  return sum;
};

async function run(test: TestDevice, { shape: [rows, cols, k], a = "f32", weight = "bf16", epilogue = "none" }: Case) {
  const aValues = normal(1, rows * k).map((v) => stored(v, a));
  const isSilu = epilogue === "silu gate";
  const wValues = normal(2, (isSilu ? 2 : 1) * (cols + 3) * k, 0, 1 / Math.sqrt(k)).map((v) => storedWeight(v, weight));
  const bias = normal(3, cols + 3);
  const gate = normal(4, cols + 5);
  const residual = normal(5, rows * cols);
  const column = epilogue === "column" ? 11 : 0;
  const { y } = await runRecorded(test, (recorder, inputs) => {
    const x = inputs.tensor("a", rows, k, aValues, { dtype: a, rowsBefore: 3, rowsAfter: 2 });
    // The weight has three rows more, so that the range begins where no binding can.
    const w = weightOf(inputs, "weight", wValues.length / k, k, wValues, weight);
    const weightRows: [number, number] = [3, 3 + cols];
    if (isSilu) return { y: matmul(recorder, x, w, { weightRows, upRow: 6 + cols }) };
    if (epilogue === "bias") return { y: matmul(recorder, x, w, { weightRows, bias: inputs.vector("bias", bias) }) };
    if (epilogue === "column") {
      const into = inputs.tensor("into", rows, cols + column, new Float32Array(rows * (cols + column)));
      return { y: matmul(recorder, x, w, { weightRows, into: { tensor: into, column } }) };
    }
    const gates = epilogue.startsWith("gate") ? { tensor: inputs.tensor("gate", 1, cols + 5, gate), at: 5 } : undefined;
    if (epilogue === "accumulate" || epilogue === "gated residual") {
      const into = inputs.tensor("y", rows, cols, residual, { rowsBefore: 1, rowsAfter: 1 });
      return { y: matmul(recorder, x, w, { weightRows, gate: gates, into: { tensor: into, accumulate: true } }) };
    }
    return { y: matmul(recorder, x, w, { weightRows, gate: gates }) };
  });

  const expected = new Float64Array(y.values.length);
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < cols; n++) {
      let s = dot(aValues, m, wValues, 3 + n, k);
      if (epilogue === "bias") s += bias[3 + n] as number;
      if (isSilu) s = (s / (1 + Math.exp(-s))) * dot(aValues, m, wValues, 6 + cols + n, k);
      if (epilogue.startsWith("gate")) s *= gate[5 + n] as number;
      if (epilogue === "accumulate" || epilogue === "gated residual") s += residual[m * cols + n] as number;
      expected[m * (cols + column) + column + n] = s;
    }
  }
  return nmse(y.values, expected);
}

describe.each(configurations)("matmul on %s", (_, open) => {
  let test: TestDevice;
  beforeAll(async () => {
    test = await open();
  });

  it.each(cases)("$shape a $a weight $weight, $epilogue", async (c) => {
    expect(await run(test, c)).toBeLessThanOrEqual(nmseBound.f32);
  });

  it("adds silu-gated values beyond the range of f16 without losing them", async () => {
    const { y } = await runRecorded(test, (recorder, inputs) => {
      const a = inputs.tensor("a", 2, 8, new Float32Array(16).fill(16), { dtype: "f16" });
      const w = weightOf(inputs, "weight", 16, 8, new Float32Array(128).fill(4), "bf16");
      return { y: matmul(recorder, a, w, { weightRows: [0, 8], upRow: 8 }) };
    });
    expect(y.values.every((v) => v === 512 * 512)).toBe(true);
  });

  it("takes a slice of rows as input", async () => {
    const values = normal(7, 40 * 24);
    const { y } = await runRecorded(test, (recorder, inputs) => {
      const a = sliceRows(inputs.tensor("a", 40, 24, values), 11, 29);
      const identity = Float32Array.from({ length: 24 * 24 }, (_, i) => (i % 25 === 0 ? 1 : 0));
      return { y: matmul(recorder, a, weightOf(inputs, "identity", 24, 24, identity, "f32")) };
    });
    expect([...y.values]).toEqual([...values.subarray(11 * 24, 29 * 24)]);
  });
});
