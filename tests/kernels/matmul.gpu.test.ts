// The matrix product against f64, in every dtype, with every epilogue, on every choice of kernel and split.

import { beforeAll, describe, expect, it } from "vitest";
import type { Recorder } from "../../src/engine/gpu/recorder.js";
import { sliceRows, type Tensor } from "../../src/engine/gpu/tensor.js";
import { type MatmulOptions, matmul, matmulWorkload, type Product } from "../../src/engine/ops/matmul.js";
import { matrixVariants } from "../../src/engine/ops/matrix-tiles.js";
import { type Variant, variantName } from "../../src/engine/ops/variants.js";
import type { Weight } from "../../src/engine/weights/upload.js";
import {
  configurations,
  opened,
  recordWith,
  roundsOperands,
  storedWeight,
  type TunedDevice,
  type WeightDtype,
  weightOf,
  withEach,
} from "./linear.js";
import { nmse, nmseBound, normal, runRecorded, stored } from "./reference.js";

type Case = {
  shape: [rows: number, cols: number, k: number];
  a?: "f32" | "f16";
  weight?: WeightDtype;
  epilogue?: "none" | "bias" | "gate" | "accumulate" | "gated residual" | "silu gate" | "column";
  /** Elements of a are of this size, default 1, and those of the weight of its reciprocal. */
  magnitude?: number;
  /** Also for the largest tile on a processor. */
  isForAll?: boolean;
};

/** Drivers for processors compile this tile for ten seconds, for each dtype and epilogue anew: some cases have to do. */
function isSlowToCompile(test: TunedDevice, { stem, tunables }: Variant): boolean {
  return test.device.isSoftware && stem === "matmul" && tunables.ROWS === 8;
}

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

// Drivers for processors compile each tile for seconds, for each dtype and epilogue anew: cases share those where they can.
const cases: Case[] = [
  { shape: [1, 1, 1] },
  { shape: [1, 768, 256] },
  { shape: [3, 5, 7], epilogue: "bias" },
  { shape: [13, 33, 56], weight: "f16", epilogue: "accumulate" },
  { shape: [65, 129, 80], weight: "f32", isForAll: true },
  { shape: [64, 64, 64] },
  { shape: [512, 192, 64] },
  { shape: [100, 50, 10], epilogue: "silu gate", weight: "f32" },
  { shape: [77, 160, 64], epilogue: "silu gate", isForAll: true },
  { shape: [130, 384, 128], epilogue: "silu gate", a: "f16" },
  { shape: [33, 70, 24], epilogue: "silu gate", weight: "f16" },
  { shape: [24, 80, 320], epilogue: "gated residual" },
  { shape: [9, 17, 40], epilogue: "accumulate", weight: "f16" },
  { shape: [31, 40, 48], epilogue: "gate", weight: "f32" },
  { shape: [19, 31, 104], epilogue: "column" },
  { shape: [40, 50, 72], a: "f16", weight: "f16", epilogue: "gated residual" },
  { shape: [70, 768, 300], weight: "bf16" },
  { shape: [5, 160, 3072], a: "f16", epilogue: "bias" },
  { shape: [4, 300, 520], epilogue: "bias" },
  { shape: [2, 37, 1000], a: "f16", weight: "f16", epilogue: "silu gate" },
  { shape: [3, 70, 264], weight: "f32", epilogue: "gated residual" },
  { shape: [8, 50, 96], epilogue: "silu gate" },
  { shape: [7, 31, 600], weight: "f32", epilogue: "column" },
  // Odd in every way a tile, a matrix, a step and a group can be.
  { shape: [64, 64, 32], a: "f16" },
  { shape: [65, 65, 33], a: "f16" },
  { shape: [63, 31, 31], a: "f16", weight: "f32", epilogue: "silu gate" },
  { shape: [200, 300, 100], a: "f16", weight: "f16", epilogue: "bias" },
  { shape: [129, 257, 264], a: "f16", epilogue: "silu gate" },
  { shape: [128, 128, 640], a: "f16", weight: "f32", epilogue: "gated residual", isForAll: true },
  { shape: [16, 24, 1000], a: "f16", epilogue: "column" },
  { shape: [40, 48, 96], epilogue: "gated residual", magnitude: 1e9 },
  { shape: [40, 48, 96], weight: "f32", magnitude: 1e-9 },
];

const dot = (a: Float64Array, at: number, w: Float64Array, row: number, k: number) => {
  let sum = 0;
  for (let i = 0; i < k; i++) sum += (a[at * k + i] as number) * (w[row * k + i] as number);
  return sum;
};

/** Gives the error of a case as a variant computes it; operands are expected to be rounded where it rounds them. */
function prepare(test: TunedDevice, c: Case): (variant: Variant) => Promise<number> {
  const { shape, a = "f32", weight = "bf16", epilogue = "none", magnitude = 1 } = c;
  const [rows, cols, k] = shape;
  const product = (variant: Variant, recorder: Recorder, x: Tensor, w: Weight, options: MatmulOptions) => {
    const operands = roundsOperands(variant) ? "f16" : "f32";
    return recordWith(variant, recorder, () => matmul(recorder, x, w, { ...options, operands }));
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
  const isGated = epilogue.startsWith("gate");
  const isAdded = epilogue === "accumulate" || epilogue === "gated residual";
  const compute = (variant: Variant) =>
    runRecorded(test, (recorder, inputs) => {
      const x = inputs.tensor("a", rows, k, aValues, { dtype: a, rowsBefore: 3, rowsAfter: 2 });
      // The weight has three rows more, so that the range begins where no binding can.
      const w = weightOf(inputs, "weight", wValues.length / k, k, wValues, weight);
      const options: MatmulOptions = { weightRows: [3, 3 + cols] };
      if (isSilu) options.upRow = 6 + cols;
      if (epilogue === "bias") options.bias = inputs.vector("bias", bias);
      if (epilogue === "column") {
        const zeros = new Float32Array(rows * (cols + column));
        options.into = { tensor: inputs.tensor("into", rows, cols + column, zeros), column };
      }
      if (isGated) options.gate = { tensor: inputs.tensor("gate", 1, cols + 5, gate), at: 5 };
      if (isAdded) {
        const tensor = inputs.tensor("y", rows, cols, residual, { rowsBefore: 1, rowsAfter: 1 });
        options.into = { tensor, accumulate: true };
      }
      return { y: product(variant, recorder, x, w, options) };
    });

  const expectedOf = (isRounded: boolean) => {
    const aExact = isRounded ? roundedRows(aValues, k, a) : Float64Array.from(aValues);
    const wExact = isRounded ? roundedRows(wValues, k, weight) : Float64Array.from(wValues);
    const expected = new Float64Array(rows * (cols + column));
    for (let m = 0; m < rows; m++) {
      for (let n = 0; n < cols; n++) {
        let s = dot(aExact, m, wExact, 3 + n, k);
        if (epilogue === "bias") s += bias[3 + n] as number;
        if (isSilu) s = (s / (1 + Math.exp(-s))) * dot(aExact, m, wExact, 6 + cols + n, k);
        if (isGated) s *= gate[5 + n] as number;
        if (isAdded) s += residual[m * cols + n] as number;
        expected[m * (cols + column) + column + n] = s;
      }
    }
    return expected;
  };
  const expected = new Map<boolean, Float64Array>();
  return async (variant) => {
    const isRounded = roundsOperands(variant);
    if (!expected.has(isRounded)) expected.set(isRounded, expectedOf(isRounded));
    const { y } = await compute(variant);
    return nmse(y.values, expected.get(isRounded) as Float64Array);
  };
}

describe.each(configurations)("matmul on %s", (_, open) => {
  let test: TunedDevice;
  beforeAll(async () => {
    test = await open();
  });

  it.each(cases)("$shape a $a weight $weight, $epilogue", async (c) => {
    const { shape, a = "f32", weight = "bf16", epilogue } = c;
    const [rows, cols, k] = shape;
    const product: Product = { rows, k, cols, a, weight, operands: "f16", isGated: epilogue === "silu gate" };
    const error = prepare(test, c);
    const variants = matmulWorkload(product)
      .variants(test.device)
      .filter((v) => c.isForAll || !isSlowToCompile(test, v));
    await withEach(test, variants, async (variant) => {
      const bound = roundsOperands(variant) ? nmseBound.f16 : nmseBound.f32;
      expect(await error(variant), variantName(variant)).toBeLessThanOrEqual(bound);
    });
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

describe("matmul on matrix units", async () => {
  // Asked before the table is made: a device without matrix units has none to check.
  const test = await opened({});
  const variants = matrixVariants(test.device, "matmul");
  const adapter = test.device.info.description || test.device.info.vendor;

  if (variants.length > 0) {
    it("shows a weight that is infinite", async () => {
      const [rows, cols, k] = [20, 40, 24];
      const values = normal(1, cols * k);
      values[7 * k + 3] = Number.POSITIVE_INFINITY;
      await withEach(test, variants, async (variant) => {
        const { y } = await runRecorded(test, (recorder, inputs) => {
          const a = inputs.tensor("a", rows, k, new Float32Array(rows * k), { dtype: "f16" });
          const weight = weightOf(inputs, "weight", cols, k, values, "bf16");
          return { y: recordWith(variant, recorder, () => matmul(recorder, a, weight)) };
        });
        expect([...y.values]).toEqual(Array.from(y.values, (_, i) => (i % cols === 7 ? Number.NaN : 0)));
      });
    });
  } else {
    console.log(`${adapter} shows no matrix units of f16 with sums in f32: their kernels were not tested`);
    it("lists none where there are none", () => {
      const product = { rows: 64, k: 64, cols: 64, a: "f16", weight: "bf16", operands: "f16", isGated: false } as const;
      const stems = matmulWorkload(product)
        .variants(test.device)
        .map(({ stem }) => stem);
      expect(stems).not.toContain("matmul_subgroup_matrix");
    });
  }
});
