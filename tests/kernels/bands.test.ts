// Bands and folded workgroups as arithmetic: nothing is left out, nothing is done twice.

import fc from "fast-check";
import { expect, test } from "vitest";
import { bands, foldWorkgroups } from "../../src/engine/ops/bands.js";

test("bands cover all rows once, begin at multiples of the unit and are no longer than asked", () => {
  const natural = fc.integer({ min: 1, max: 1000 });
  fc.assert(
    fc.property(natural, fc.double({ min: 0.01, max: 1500, noNaN: true }), natural, (rows, step, unit) => {
      const cut = bands(rows, step, unit);
      expect(cut.flatMap(({ begin, end }) => Array.from({ length: end - begin }, (_, i) => begin + i))).toEqual(
        Array.from({ length: rows }, (_, i) => i),
      );
      for (const { begin, end } of cut) {
        expect(begin % unit).toBe(0);
        expect(end - begin).toBeLessThanOrEqual(Math.max(unit, step));
      }
    }),
  );
});

test("folded workgroups are enough, and each side has at most 65535", () => {
  expect(foldWorkgroups(0.1)).toEqual([1, 1, 1]);
  expect(foldWorkgroups(65535)).toEqual([65535, 1, 1]);
  expect(foldWorkgroups(65535.1)).toEqual([65535, 2, 1]);
  fc.assert(
    fc.property(fc.double({ min: 0.01, max: 1e9, noNaN: true }), (count) => {
      const [x, y, z] = foldWorkgroups(count);
      expect(x * y * z).toBeGreaterThanOrEqual(count);
      expect(Math.max(x, y)).toBeLessThanOrEqual(65535);
      expect(x * (y - 1)).toBeLessThan(Math.ceil(count));
    }),
  );
});
