// The test bench itself: a bench that loses a difference would let every kernel pass.

import { describe, expect, test } from "vitest";
import { testDevice } from "../gpu.js";
import { halfBits, halfValue, nmse, normal, runRecorded } from "./reference.js";

describe("f16", () => {
  test("every finite half survives the round trip, ties go to even, what is too large becomes infinite", () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      if ((bits & 0x7c00) !== 0x7c00) expect(halfBits(halfValue(bits))).toBe(bits);
    }
    expect(halfValue(halfBits(1 + 2 ** -11))).toBe(1);
    expect(halfValue(halfBits(1 + 3 * 2 ** -11))).toBe(1 + 2 ** -9);
    expect(halfBits(65519)).toBe(0x7bff);
    expect(halfBits(65520)).toBe(0x7c00);
  });
});

describe("nmse", () => {
  test("is the ratio of powers, and infinite for values that are not finite", () => {
    expect(nmse([1, 2], [1, 1])).toBe(0.5);
    expect(nmse([0, 0], [0, 0])).toBe(0);
    expect(nmse([1, Number.NaN], [1, 1])).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("runRecorded", () => {
  test.each(["f32", "f16"] as const)("gives back what a sliced %s input holds", async (dtype) => {
    const bench = await testDevice();
    const values = normal(1, 5 * 13).map((v) => halfValue(halfBits(v)));
    const { y } = await runRecorded(bench, (recorder, inputs) => {
      const x = inputs.tensor("x", 5, 13, values, { dtype, rowsBefore: 3, rowsAfter: 2 });
      const y = recorder.scratch("y", 5, 13, dtype);
      recorder.copy(x, y);
      return { y };
    });
    expect(y.values).toEqual(values);
  });

  test("refuses an output whose padding is not zero", async () => {
    const bench = await testDevice();
    const run = runRecorded(bench, (recorder, inputs) => {
      const wide = inputs.tensor("wide", 1, 8, [1, 2, 3, 4, 5, 6, 7, 8]);
      const y = recorder.scratch("y", 1, 7);
      recorder.copy(wide, y);
      return { y };
    });
    await expect(run).rejects.toThrow(/padding \[0, 7\] is 8/);
  });
});
