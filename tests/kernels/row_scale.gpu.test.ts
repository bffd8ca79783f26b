// Row scales against their definition: exact powers of two, whatever the size of a row's values.

import { beforeAll, describe, expect, it } from "vitest";
import { sliceRows } from "../../src/engine/gpu/tensor.js";
import { tensorRowScales, weightRowScales } from "../../src/engine/ops/row-scale.js";
import type { TestDevice } from "../gpu.js";
import { configurations, storedWeight, weightOf } from "./linear.js";
import { flippedDevice, normal, runRecorded } from "./reference.js";

/** Rows of normal numbers, one magnitude a row. */
const magnitudes = [1, 0, 1e-30, 1e30, 65504, 2 ** 14, 2 ** 15 - 2 ** -8, 1e-6, 3e38, 2 ** -126];
const rowsOf = (cols: number) => {
  const values = normal(1, magnitudes.length * cols);
  return values.map((value, i) => Math.max(-1, Math.min(1, value)) * (magnitudes[Math.floor(i / cols)] as number));
};

/** s and 1 / s, as far as both are normal numbers. */
function scaleOf(row: Float32Array): [number, number] {
  const exponent = Math.floor(Math.log2(Math.max(...row.map(Math.abs))));
  const scale = 2 ** Math.max(-126, Math.min(126, 14 - exponent));
  return [scale, 1 / scale];
}

describe.each([...configurations, ["the other sort of device", flippedDevice] as const])(
  "row scales on %s",
  (_, open) => {
    let test: TestDevice;
    beforeAll(async () => {
      test = await open();
    });

    it.each([1, 8, 13, 300, 3072])("of f32 rows of %d", async (cols) => {
      const values = rowsOf(cols);
      const { y } = await runRecorded(test, (recorder, inputs) => {
        const x = inputs.tensor("x", magnitudes.length, cols, values, { rowsBefore: 1, rowsAfter: 1 });
        return { y: tensorRowScales(recorder, x) };
      });
      const expected = magnitudes.flatMap((_, r) => scaleOf(values.subarray(r * cols, (r + 1) * cols)));
      expect([...y.values]).toEqual(expected);
    });

    it.each(["bf16", "f32"] as const)("of rows in the middle of a %s weight", async (dtype) => {
      const cols = 40;
      const values = rowsOf(cols).map((value) => storedWeight(value, dtype));
      const { y } = await runRecorded(test, (recorder, inputs) => {
        return {
          y: weightRowScales(recorder, weightOf(inputs, "weight", magnitudes.length, cols, values, dtype), 3, 8),
        };
      });
      const expected = [3, 4, 5, 6, 7].flatMap((r) => scaleOf(values.subarray(r * cols, (r + 1) * cols)));
      expect([...y.values]).toEqual(expected);
    });

    it("a row that holds a NaN or an infinity gives NaN", async () => {
      const values = new Float32Array(4 * 100).fill(2 ** 14);
      values[17] = Number.NaN;
      values[199] = Number.NEGATIVE_INFINITY;
      const { y } = await runRecorded(test, (recorder, inputs) => {
        return { y: tensorRowScales(recorder, sliceRows(inputs.tensor("x", 4, 100, values), 0, 3)) };
      });
      expect([...y.values]).toEqual([1, Number.NaN, 1, Number.NaN, 1, 1]);
    });
  },
);
