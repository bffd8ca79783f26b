// bench_fma and bench_copy compute what their headers say: a ceiling of work that was not done would be no ceiling.

import { expect, test } from "vitest";
import { recordCopy, recordFma } from "../../bench/ceiling-kernels.js";
import { measureCeilings } from "../../bench/ceilings.js";
import { testDevice } from "../gpu.js";
import { firstDifference, flippedDevice, nmse, nmseBound, normal, runRecorded } from "../kernels/reference.js";

test.each([
  { workgroups: 1, steps: 0, scale: 0.5, offset: 2 },
  { workgroups: 1, steps: 1, scale: 0.9, offset: -0.5 },
  { workgroups: 3, steps: 5, scale: -0.99, offset: 0.25 },
  { workgroups: 7, steps: 40, scale: 0.999, offset: 0.001 },
])("bench_fma: $workgroups workgroups, $steps steps", async ({ workgroups, steps, scale, offset }) => {
  const { y } = await runRecorded(await testDevice(), (recorder) => ({
    y: recordFma(recorder, { workgroups, steps, scale, offset }),
  }));
  const expected = Float64Array.from({ length: workgroups * 64 * 4 }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < 3; j++) {
      let x = (Math.floor(i / 4) % 64) + 4 * j + (i % 4);
      for (let s = 0; s < 8 * steps; s++) x = x * Math.fround(scale) + Math.fround(offset);
      sum += x;
    }
    return sum;
  });
  expect(nmse(y.values, expected)).toBeLessThanOrEqual(nmseBound.f32);
});

test.each([
  [1, 8],
  [1, 1],
  [67, 24],
  [129, 1000],
])("bench_copy: [%i, %i]", async (rows, cols) => {
  const values = normal(rows, rows * cols);
  for (const bench of [await testDevice(), await flippedDevice()]) {
    const { y } = await runRecorded(bench, (recorder, inputs) => ({
      y: recordCopy(recorder, inputs.tensor("x", rows, cols, values)),
    }));
    expect(firstDifference(y.values, values)).toBeUndefined();
  }
});

test("the ceilings of this device are above what the slowest machine does and below what none does", async () => {
  const { gflops, gbps } = await measureCeilings((await testDevice()).device, 1);
  expect(gflops).toBeGreaterThan(0.5);
  expect(gflops).toBeLessThan(1e6);
  expect(gbps).toBeGreaterThan(0.05);
  expect(gbps).toBeLessThan(1e5);
});
