// rms_norm against its formula, to f32 and to f16, on rows that are slices of a larger tensor.
// Bands of rows that begin at no binding's alignment must give the same bits as the whole.

import { describe, expect, test } from "vitest";
import { rmsNorm } from "../../src/engine/ops/norm.js";
import { testDevice } from "../gpu.js";
import * as formulas from "./formulas.js";
import { benches, firstDifference, nmse, nmseBound, normal, runRecorded, smallDevice } from "./reference.js";

const cases = [
  { rows: 1, cols: 1, dtype: "f32" },
  { rows: 3, cols: 7, dtype: "f32" },
  { rows: 5, cols: 56, dtype: "f32" },
  { rows: 5, cols: 56, dtype: "f16" },
  { rows: 17, cols: 80, dtype: "f32" },
  { rows: 33, cols: 128, dtype: "f16" },
  { rows: 129, cols: 13, dtype: "f16" },
  { rows: 2500, cols: 13, dtype: "f16" },
  { rows: 600, cols: 56, dtype: "f32" },
  { rows: 40, cols: 2560, dtype: "f32" },
  { rows: 9, cols: 3072, dtype: "f16" },
] as const;

const eps = 1e-6;

function run(bench: Awaited<ReturnType<typeof testDevice>>, c: (typeof cases)[number], x: Float32Array) {
  const weight = normal(2, c.cols, 1, 0.3);
  return runRecorded(bench, (recorder, inputs) => {
    const input = inputs.tensor("x", c.rows, c.cols, x, { rowsBefore: 3, rowsAfter: 1 });
    return { y: rmsNorm(recorder, input, inputs.vector("weight", weight), { eps, dtype: c.dtype }) };
  });
}

describe.each(benches)("rms_norm on $on", ({ open }) => {
  test.each(cases)("[$rows, $cols] to $dtype", async (c) => {
    const x = normal(1, c.rows * c.cols, 0.5, 3);
    const { y } = await run(await open(), c, x);
    const expected = formulas.rmsNorm(x, c.rows, c.cols, normal(2, c.cols, 1, 0.3), eps);
    expect(nmse(y.values, expected)).toBeLessThanOrEqual(nmseBound[c.dtype]);
  });

  test("eps keeps a row of zeros zero", async () => {
    const { y } = await run(await open(), { rows: 2, cols: 9, dtype: "f32" } as never, new Float32Array(18));
    expect([...y.values]).toEqual(Array(18).fill(0));
  });

  test("f16 results are clamped to what f16 holds", async () => {
    const { y } = await runRecorded(await open(), (recorder, inputs) => {
      const x = inputs.tensor("x", 1, 3, [1, -1, 0.5]);
      const weight = inputs.vector("weight", [1e6, 1e6, 1]);
      return { y: rmsNorm(recorder, x, weight, { eps, dtype: "f16" }) };
    });
    expect([...y.values.slice(0, 2)]).toEqual([65504, -65504]);
  });
});

test.each(cases)("rms_norm [$rows, $cols] to $dtype: small bindings change no bit", async (c) => {
  const x = normal(1, c.rows * c.cols, 0.5, 3);
  const [whole, split] = [await run(await testDevice(), c, x), await run(await smallDevice(), c, x)];
  expect(firstDifference(split.y.words, whole.y.words)).toBeUndefined();
});
