// health and health_combine: a single bad value anywhere must be found, and padding must not count.
// Inputs are written as bits, because a NaN may lose its bits on the way through a JavaScript number.

import { describe, expect, test } from "vitest";
import { health, healthWords, judgeHealth } from "../../src/engine/ops/health.js";
import type { DaybreakError } from "../../src/errors.js";
import { type TestDevice, testDevice } from "../gpu.js";
import { benches, normal, runRecorded } from "./reference.js";

const shapes = [
  { rows: 2, cols: 1 },
  { rows: 3, cols: 7 },
  { rows: 1000, cols: 3 },
  { rows: 129, cols: 56 },
  { rows: 70, cols: 3072 },
];

type Shape = (typeof shapes)[number];

const bad = {
  "quiet NaN": { bits: 0x7fc00000, code: "numerics.non_finite" },
  "signalling NaN": { bits: 0x7f800001, code: "numerics.non_finite" },
  "negative NaN": { bits: 0xffffffff, code: "numerics.non_finite" },
  infinity: { bits: 0x7f800000, code: "numerics.non_finite" },
  "negative infinity": { bits: 0xff800000, code: "numerics.non_finite" },
  "a million and more": { bits: bitsOf(1.0001e6), code: "numerics.exploded" },
  "minus a million and more": { bits: bitsOf(-1.0001e6), code: "numerics.exploded" },
} as const;

function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] as number;
}

/** The words of slot 2 of 4 for a matrix of bits. */
async function examine(bench: TestDevice, { rows, cols }: Shape, bits: Uint32Array): Promise<Uint32Array> {
  const { result } = await runRecorded(bench, (recorder, inputs) => {
    const x = inputs.tensor("x", rows, cols, bits, { dtype: "u32", rowsBefore: 3, rowsAfter: 1 });
    const result = inputs.tensor("result", 4, healthWords, new Uint32Array(4 * healthWords).fill(7), { dtype: "u32" });
    health(recorder, { ...x, dtype: "f32" }, result, 2);
    return { result };
  });
  const others = [...result.words.slice(0, 2 * healthWords), ...result.words.slice(3 * healthWords)];
  expect(others).toEqual(Array(3 * healthWords).fill(7));
  return result.words.slice(2 * healthWords, 3 * healthWords);
}

const randomBits = ({ rows, cols }: Shape) => new Uint32Array(normal(1, rows * cols, 0, 100).buffer);

function codeOf(run: () => void): string | undefined {
  try {
    run();
  } catch (error) {
    return (error as DaybreakError).code;
  }
  return undefined;
}

describe.each(benches)("health on $on", ({ open }) => {
  test.each(shapes)("[$rows, $cols]: counts, least and greatest of healthy values", async (shape) => {
    const bits = randomBits(shape);
    const words = await examine(await open(), shape, bits);
    const values = [...new Float32Array(bits.buffer)];
    const ordered = (v: number) => (v < 0 ? ~bitsOf(v) : bitsOf(v) | 0x80000000) >>> 0;
    const least = values.reduce((a, b) => Math.min(a, b));
    const greatest = values.reduce((a, b) => Math.max(a, b));
    expect([...words]).toEqual([0, ordered(least), ordered(greatest), values.length, 0, 0, 0, 0]);
    expect(() => judgeHealth(words, "the test")).not.toThrow();
  });

  test.each(shapes)("[$rows, $cols]: one bad value at the first, a middle and the last place", async (shape) => {
    const count = shape.rows * shape.cols;
    for (const [name, { bits: badBits, code }] of Object.entries(bad)) {
      for (const place of new Set([0, Math.floor(count / 2), count - 1])) {
        const bits = randomBits(shape);
        bits[place] = badBits;
        const words = await examine(await open(), shape, bits);
        expect(words[0], `${name} at ${place}`).toBe(code === "numerics.non_finite" ? 1 : 0);
        expect(codeOf(() => judgeHealth(words, "step 3 of 4"))).toBe(code);
        expect(() => judgeHealth(words, "step 3 of 4")).toThrow(/^step 3 of 4 gave .*\d/);
      }
    }
  });

  test("equal values are a collapse, signed zeros too; a single value is none", async () => {
    const bench = await open();
    const zeros = Uint32Array.from({ length: 21 }, (_, i) => (i % 2 === 0 ? 0x80000000 : 0));
    const words = await examine(bench, { rows: 3, cols: 7 }, zeros);
    expect(codeOf(() => judgeHealth(words, "the prompt"))).toBe("numerics.collapsed");
    const equal = await examine(bench, { rows: 3, cols: 7 }, new Uint32Array(21).fill(bitsOf(-2.5)));
    expect(() => judgeHealth(equal, "the prompt")).toThrow("the prompt gave 21 values that all equal -2.5");
    const single = await examine(bench, { rows: 1, cols: 1 }, Uint32Array.of(bitsOf(5)));
    expect(codeOf(() => judgeHealth(single, "the prompt"))).toBe(undefined);
  });
});

test("a slot that was never written is a programmer error, not health", async () => {
  await testDevice();
  expect(() => judgeHealth(new Uint32Array(healthWords), "the prompt")).toThrow(/has not run/);
});
