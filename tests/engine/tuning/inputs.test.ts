// Inputs are the same numbers in every dtype, and differ from label to label and from row to row.

import { expect, test } from "vitest";
import { sampleValues } from "../../../src/engine/tuning/inputs.js";

import { storedAs, widened } from "../weights/fixtures.js";

test("f16 and bf16 hold exactly the f32 values", () => {
  const values = sampleValues("x", 70_000);
  const bytes = (dtype: "f16" | "bf16") => new Uint8Array(sampleValues("x", 70_000, dtype).buffer);
  expect(widened(storedAs("F16"), bytes("f16"))).toEqual(values);
  expect(widened(storedAs("BF16"), bytes("bf16"))).toEqual(values);
});

test("values are small, about centred and not periodic in a row", () => {
  const values = sampleValues("weight", 300_000);
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const power = values.reduce((sum, v) => sum + v * v, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.02);
  expect(power).toBeGreaterThan(1);
  expect(power).toBeLessThan(1.6);
  const [a, b] = [values.subarray(0, 3072), values.subarray(3072, 6144)];
  const correlation = a.reduce((sum, v, i) => sum + v * b[i]!, 0) / 3072 / power;
  expect(Math.abs(correlation)).toBeLessThan(0.1);
});

test("labels have numbers of their own, always the same", () => {
  const labels = ["q", "k", "v", "x", "a", "weight", "bias", "norm q", "norm k"];
  const starts = labels.map((label) => sampleValues(label, 16).join());
  expect(new Set(starts).size).toBe(labels.length);
  expect(sampleValues("q", 16).join()).toBe(starts[0]);
});
