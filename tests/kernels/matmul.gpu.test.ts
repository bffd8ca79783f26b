// The matrix product against f64, in every dtype, with every epilogue, on every choice of kernel and split.

import { beforeAll, describe, expect, it, vi } from "vitest";
import type { Recorder } from "../../src/engine/gpu/commands.js";
import { sliceRows, type Tensor } from "../../src/engine/gpu/tensor.js";
import { type MatmulOptions, matmul } from "../../src/engine/ops/matmul.js";
import { matrixVariants } from "../../src/engine/ops/matrix-tiles.js";
import type { Weight } from "../../src/engine/weights/upload.js";
import type { TestDevice } from "../gpu.js";
import { configurations, opened, storedWeight, type WeightDtype, weightOf } from "./linear.js";
import { nmse, nmseBound, normal, runRecorded, stored } from "./reference.js";

type Case = {
  shape: [rows: number, cols: number, k: number];
  a?: "f32" | "f16";
  weight?: WeightDtype;
  epilogue?: "none" | "bias" | "gate" | "accumulate" | "gated residual" | "silu gate" | "column";
  /** Elements of a are of this size, default 1, and those of the weight of its reciprocal. */
  magnitude?: number;
};

/** Rows as a kernel rounds them that scales each of them by a power of two into the range of f16. */
function roundedRows(values: ArrayLike<number>, cols: number, dtype: WeightDtype): Float64Array {
  const rounded = Float64Array.from(values);
  if (dtype === "f16") return rounded;
  for (let at = 0; at < rounded.length; at += cols) {
    const row = rounded.subarray(at, at + cols);
    const scale = 2 ** (14 - Math.floor(Math.log2(Math.max(1e-30, ...row.map(Math.abs)))));
    row.forEach((value, c) => {
      row[c] = stored(value * scale, "f16") / scale;
    });
  }
  return rounded;
}

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

const dot = (a: ArrayLike<number>, at: number, w: ArrayLike<number>, row: number, k: number) => {
  let sum = 0;
  for (let i = 0; i < k; i++) sum += (a[at * k + i] as number) * (w[row * k + i] as number);
  return sum;
};

/** The error of a case; `onMatrixUnits`: operands are rounded, and the kernel that does so must have been taken. */
async function run(test: TestDevice, c: Case, onMatrixUnits = false) {
  const { shape, a = "f32", weight = "bf16", epilogue = "none", magnitude = 1 } = c;
  const [rows, cols, k] = shape;
  const product = (recorder: Recorder, x: Tensor, w: Weight, options: MatmulOptions) => {
    if (!onMatrixUnits) return matmul(recorder, x, w, options);
    const dispatch = vi.spyOn(recorder, "dispatch");
    const y = matmul(recorder, x, w, { ...options, operands: "f16" });
    expect(dispatch.mock.calls.map(([{ kernel }]) => kernel.layout.stem)).toContain("matmul_subgroup_matrix");
    return y;
  };
  const aValues = normal(1, rows * k, 0, magnitude).map((v) => stored(v, a));
  const isSilu = epilogue === "silu gate";
  const wValues = normal(2, (isSilu ? 2 : 1) * (cols + 3) * k, 0, 1 / magnitude / Math.sqrt(k)).map((v) =>
    storedWeight(v, weight),
  );
  const bias = normal(3, cols + 3);
  const gate = normal(4, cols + 5);
  const residual = normal(5, rows * cols);
  const column = epilogue === "column" ? 11 : 0;
  const { y } = await runRecorded(test, (recorder, inputs) => {
    const x = inputs.tensor("a", rows, k, aValues, { dtype: a, rowsBefore: 3, rowsAfter: 2 });
    // The weight has three rows more, so that the range begins where no binding can.
    const w = weightOf(inputs, "weight", wValues.length / k, k, wValues, weight);
    const weightRows: [number, number] = [3, 3 + cols];
    if (isSilu) return { y: product(recorder, x, w, { weightRows, upRow: 6 + cols }) };
    if (epilogue === "bias") return { y: product(recorder, x, w, { weightRows, bias: inputs.vector("bias", bias) }) };
    if (epilogue === "column") {
      const into = inputs.tensor("into", rows, cols + column, new Float32Array(rows * (cols + column)));
      return { y: product(recorder, x, w, { weightRows, into: { tensor: into, column } }) };
    }
    const gates = epilogue.startsWith("gate") ? { tensor: inputs.tensor("gate", 1, cols + 5, gate), at: 5 } : undefined;
    if (epilogue === "accumulate" || epilogue === "gated residual") {
      const into = inputs.tensor("y", rows, cols, residual, { rowsBefore: 1, rowsAfter: 1 });
      return { y: product(recorder, x, w, { weightRows, gate: gates, into: { tensor: into, accumulate: true } }) };
    }
    return { y: product(recorder, x, w, { weightRows, gate: gates }) };
  });

  const [aExact, wExact] = onMatrixUnits
    ? [roundedRows(aValues, k, a), roundedRows(wValues, k, weight)]
    : [aValues, wValues];
  const expected = new Float64Array(y.values.length);
  for (let m = 0; m < rows; m++) {
    for (let n = 0; n < cols; n++) {
      let s = dot(aExact, m, wExact, 3 + n, k);
      if (epilogue === "bias") s += bias[3 + n] as number;
      if (isSilu) s = (s / (1 + Math.exp(-s))) * dot(aExact, m, wExact, 6 + cols + n, k);
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

/** Odd in every way a tile, a matrix, a step and a group can be. */
const matrixCases: Case[] = [
  ...cases,
  { shape: [64, 64, 32], a: "f16" },
  { shape: [65, 65, 33], a: "f16" },
  { shape: [63, 31, 31], a: "f16", weight: "f32", epilogue: "silu gate" },
  { shape: [200, 300, 100], a: "f16", weight: "f16", epilogue: "bias" },
  { shape: [129, 257, 264], a: "f16", epilogue: "silu gate" },
  { shape: [128, 128, 640], a: "f16", weight: "f32", epilogue: "gated residual" },
  { shape: [16, 24, 1000], a: "f16", epilogue: "column" },
  { shape: [40, 48, 96], epilogue: "accumulate", magnitude: 1e9 },
  { shape: [40, 48, 96], weight: "f32", magnitude: 1e-9 },
];

const smallBindings = { bindingBytes: 16 * 1024 };
describe.each([
  ["whole", {}],
  ["with bindings of 16 KiB", smallBindings],
  ["with dispatches of 1 MFLOP", { dispatchFlops: 1e6 }],
])("matmul on matrix units, %s", async (_, limits) => {
  // Asked before the table is made: a device without matrix units has none to check.
  const test = await opened({ limits: { ...limits, matrixRows: 1 } });
  const variants = matrixVariants(test.device);
  const adapter = test.device.info.description || test.device.info.vendor;

  if (variants.length > 0) {
    it.each(matrixCases)("$shape a $a weight $weight, $epilogue", async (c) => {
      expect(await run(test, c, true)).toBeLessThanOrEqual(nmseBound.f16);
    });

    it("shows a weight that is infinite", async () => {
      const [rows, cols, k] = [20, 40, 24];
      const values = normal(1, cols * k);
      values[7 * k + 3] = Number.POSITIVE_INFINITY;
      const { y } = await runRecorded(test, (recorder, inputs) => {
        const a = inputs.tensor("a", rows, k, new Float32Array(rows * k), { dtype: "f16" });
        return { y: matmul(recorder, a, weightOf(inputs, "weight", cols, k, values, "bf16")) };
      });
      expect([...y.values]).toEqual(Array.from(y.values, (_, i) => (i % cols === 7 ? Number.NaN : 0)));
    });
  } else {
    console.log(`${adapter} shows no matrix units of f16 with sums in f32: their kernel was not tested`);
    it("takes another kernel where there are none, even if asked for", async () => {
      expect(await run(test, { shape: [65, 65, 33], a: "f16" })).toBeLessThanOrEqual(nmseBound.f32);
    });
  }
});
