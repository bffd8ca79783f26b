// The three kernels of GroupNorm against the formula. Bindings so small that the statistics' chunks hardly fit must not
// change a bit: chunks are fixed by the width of the rows, and partial results are combined in a fixed order.

import { describe, expect, test } from "vitest";
import { groupNorm } from "../../src/engine/ops/norm.js";
import { type TestDevice, testDevice } from "../gpu.js";
import * as formulas from "./formulas.js";
import { benches, deviceWithLimits, firstDifference, nmse, nmseBound, normal, runRecorded } from "./reference.js";

type Case = { rows: number; cols: number; groups: number; silu: boolean };

const cases: Case[] = [
  { rows: 1, cols: 4, groups: 2, silu: false },
  { rows: 2, cols: 6, groups: 3, silu: true },
  { rows: 64, cols: 56, groups: 4, silu: true },
  { rows: 255, cols: 56, groups: 8, silu: false },
  { rows: 256, cols: 48, groups: 8, silu: true },
  { rows: 1000, cols: 32, groups: 4, silu: true },
  { rows: 257, cols: 40, groups: 4, silu: false },
];

/** These need chunks larger than 64 KiB, or more chunks than one combination takes. */
const largeCases: Case[] = [
  { rows: 300, cols: 80, groups: 8, silu: true },
  { rows: 600, cols: 128, groups: 32, silu: true },
  { rows: 130, cols: 512, groups: 32, silu: false },
  { rows: 10, cols: 3072, groups: 32, silu: true },
  { rows: 256 * 130 + 17, cols: 16, groups: 4, silu: true },
];

const eps = 1e-6;

function data({ rows, cols, groups }: Case) {
  const x = normal(1, rows * cols, 0, 2);
  // Groups with means of their own, some far from zero.
  for (let i = 0; i < x.length; i++) x[i]! += 20 * (Math.floor((i % cols) / (cols / groups)) % 4);
  return { x, weight: normal(2, cols, 1, 0.3), bias: normal(3, cols) };
}

function run(bench: TestDevice, c: Case) {
  const { x, weight, bias } = data(c);
  return runRecorded(bench, (recorder, inputs) => {
    const input = inputs.tensor("x", c.rows, c.cols, x, { rowsBefore: 1, rowsAfter: 1 });
    const w = inputs.vector("weight", weight);
    return { y: groupNorm(recorder, input, w, inputs.vector("bias", bias), { groups: c.groups, eps, silu: c.silu }) };
  });
}

describe.each(benches)("group_norm on $on", ({ on, open }) => {
  const table = /small/.test(on) ? cases : [...cases, ...largeCases];
  test.each(table)("[$rows, $cols] in $groups groups, silu $silu", async (c) => {
    const { y } = await run(await open(), c);
    const { x, weight, bias } = data(c);
    expect(nmse(y.values, formulas.groupNorm(x, { ...c, weight, bias, eps }))).toBeLessThanOrEqual(nmseBound.f32);
  });
});

describe("group_norm: smaller limits change no bit", () => {
  test.each([...cases, ...largeCases])("[$rows, $cols] in $groups groups", async (c) => {
    const bindingBytes = cases.includes(c) ? 64 * 1024 : 520 * 1024;
    const small = await deviceWithLimits({ bindingBytes, dispatchFlops: 1e5 });
    const [whole, split] = [await run(await testDevice(), c), await run(small, c)];
    small.device.close();
    expect(firstDifference(split.y.words, whole.y.words)).toBeUndefined();
  });
});
