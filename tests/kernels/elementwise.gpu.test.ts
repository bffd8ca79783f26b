// silu, guidance and euler_step against their formulas, on rows with padding and on slices.

import { describe, expect, test } from "vitest";
import { eulerStep, guidance, silu } from "../../src/engine/ops/elementwise.js";
import { type TestDevice, testDevice } from "../gpu.js";
import * as formulas from "./formulas.js";
import { benches, firstDifference, nmse, nmseBound, normal, runRecorded, smallDevice } from "./reference.js";

const cases = [
  { rows: 1, cols: 1 },
  { rows: 3, cols: 7 },
  { rows: 1, cols: 3072 },
  { rows: 65, cols: 56 },
  { rows: 700, cols: 56 },
  { rows: 256, cols: 128 },
  { rows: 1031, cols: 80 },
];

type Case = (typeof cases)[number];

const sliced = { rowsBefore: 1, rowsAfter: 1 };
const stepValues = [-0.0625, 4, 99, 99, 99, 99, 99, 99];
const values = (c: Case, seed: number) => normal(seed, c.rows * c.cols, 0, 4);

function run(bench: TestDevice, c: Case) {
  return runRecorded(bench, (recorder, inputs) => {
    const tensor = (label: string, seed: number) => inputs.tensor(label, c.rows, c.cols, values(c, seed), sliced);
    const step = inputs.tensor("step", 1, 8, stepValues, sliced);
    const [guided, stepped] = [tensor("velocity", 1), tensor("latents", 3)];
    guidance(recorder, guided, tensor("negative", 2), step);
    eulerStep(recorder, stepped, tensor("velocity", 1), step);
    return { activated: silu(recorder, tensor("x", 1)), guided, stepped };
  });
}

describe.each(benches)("elementwise on $on", ({ open }) => {
  test.each(cases)("[$rows, $cols]", async (c) => {
    const { activated, guided, stepped } = await run(await open(), c);
    const [v, n, x] = [values(c, 1), values(c, 2), values(c, 3)];
    expect(nmse(activated.values, formulas.silu(v))).toBeLessThanOrEqual(nmseBound.f32);
    expect(
      nmse(
        guided.values,
        Float64Array.from(v, (a, i) => n[i]! + 4 * (a - n[i]!)),
      ),
    ).toBeLessThanOrEqual(1e-12);
    expect(
      nmse(
        stepped.values,
        Float64Array.from(v, (a, i) => x[i]! - 0.0625 * a),
      ),
    ).toBeLessThanOrEqual(1e-12);
  });

  test("silu of large magnitudes is x or zero, never NaN", async () => {
    const x = [1e30, 3e38, 100, -87, -88, -100, -1e30, -3e38, 0];
    const { y } = await runRecorded(await open(), (recorder, inputs) => ({
      y: silu(recorder, inputs.tensor("x", 1, x.length, x)),
    }));
    for (const [i, value] of x.entries()) {
      const magnitude = Math.max(1, Math.abs(value));
      expect(Math.abs((y.values[i] as number) - Math.max(0, value)) / magnitude).toBeLessThanOrEqual(1e-6);
    }
  });
});

test.each(cases)("elementwise [$rows, $cols]: small bindings change no bit", async (c) => {
  const [whole, split] = [await run(await testDevice(), c), await run(await smallDevice(), c)];
  for (const name of ["activated", "guided", "stepped"] as const)
    expect(firstDifference(split[name].words, whole[name].words)).toBeUndefined();
});
