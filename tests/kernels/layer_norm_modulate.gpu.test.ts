// layer_norm_modulate against its formula. The rows' mean is far from zero, where E[x²] − E[x]² would lose the variance,
// and the modulation is a range in the middle of a longer vector, as each block's is.

import { describe, expect, test } from "vitest";
import { layerNormModulate } from "../../src/engine/ops/norm.js";
import { type TestDevice, testDevice } from "../gpu.js";
import * as formulas from "./formulas.js";
import { benches, firstDifference, nmse, nmseBound, normal, runRecorded, smallDevice } from "./reference.js";

type Case = { rows: number; cols: number; dtype: "f32" | "f16" };

const cases: Case[] = [
  { rows: 1, cols: 1, dtype: "f32" },
  { rows: 3, cols: 7, dtype: "f32" },
  { rows: 4, cols: 3, dtype: "f32" },
  { rows: 4, cols: 10, dtype: "f32" },
  { rows: 2, cols: 12, dtype: "f16" },
  { rows: 5, cols: 56, dtype: "f32" },
  { rows: 17, cols: 80, dtype: "f16" },
  { rows: 33, cols: 128, dtype: "f32" },
  { rows: 129, cols: 30, dtype: "f16" },
  { rows: 2500, cols: 13, dtype: "f16" },
  { rows: 600, cols: 56, dtype: "f32" },
  { rows: 20, cols: 3072, dtype: "f32" },
  { rows: 9, cols: 3072, dtype: "f16" },
];

const eps = 1e-6;
const data = ({ rows, cols }: Case) => ({ x: normal(1, rows * cols, 30, 1), modulation: normal(2, 6 * cols, 0, 0.5) });

function run(bench: TestDevice, c: Case) {
  const { rows, cols, dtype } = c;
  const { x, modulation } = data(c);
  return runRecorded(bench, (recorder, inputs) => {
    const input = inputs.tensor("x", rows, cols, x, { rowsBefore: 1, rowsAfter: 2 });
    const m = inputs.tensor("modulation", 1, 6 * cols, modulation, { rowsBefore: 1 });
    return { y: layerNormModulate(recorder, input, m, { scaleAt: 4 * cols, shiftAt: 3 * cols, eps, dtype }) };
  });
}

describe.each(benches)("layer_norm_modulate on $on", ({ open }) => {
  test.each(cases)("[$rows, $cols] to $dtype", async (c) => {
    const { rows, cols, dtype } = c;
    const { x, modulation } = data(c);
    const { y } = await run(await open(), c);
    const [scale, shift] = [modulation.slice(4 * cols, 5 * cols), modulation.slice(3 * cols, 4 * cols)];
    expect(nmse(y.values, formulas.layerNormModulate(x, rows, cols, scale, shift, eps))).toBeLessThanOrEqual(
      nmseBound[dtype],
    );
  });

  test("a row of equal values becomes the shift", async () => {
    const { y } = await runRecorded(await open(), (recorder, inputs) => {
      const x = inputs.tensor("x", 2, 3, [5, 5, 5, -1, -1, -1]);
      const modulation = inputs.tensor("modulation", 1, 6, [9, 9, 9, 1, 2, 3]);
      return { y: layerNormModulate(recorder, x, modulation, { scaleAt: 0, shiftAt: 3, eps, dtype: "f32" }) };
    });
    expect([...y.values]).toEqual([1, 2, 3, 1, 2, 3]);
  });
});

test.each(cases)("layer_norm_modulate [$rows, $cols] to $dtype: small bindings change no bit", async (c) => {
  const [whole, split] = [await run(await testDevice(), c), await run(await smallDevice(), c)];
  expect(firstDifference(split.y.words, whole.y.words)).toBeUndefined();
});
