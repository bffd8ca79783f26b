// How far a variant's result is off another's. Needs no device.

import { expect, it } from "vitest";
import { relativeL2 } from "../../../src/engine/tuning/trials.js";

it("relative errors", () => {
  expect(relativeL2(Float32Array.of(3, 4), Float32Array.of(3, 4))).toBe(0);
  expect(relativeL2(Float32Array.of(3, 4.5), Float32Array.of(3, 4))).toBeCloseTo(0.1, 9);
  expect(relativeL2(Float32Array.of(3), Float32Array.of(3, 4))).toBe(Number.POSITIVE_INFINITY);
  expect(relativeL2(Float32Array.of(3, Number.NaN), Float32Array.of(3, 4))).toBe(Number.POSITIVE_INFINITY);
});
