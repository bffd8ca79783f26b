// How choices of kernels read: every operation has a line, and whatever is missing from it has a reason.

import { expect, it } from "vitest";
import { describeChoices } from "../../src/cli/choices.js";
import { chosen } from "../../src/engine/tuning/choices.js";

const timed = (variant: string, ms: number) => ({ variant, ms, median_ms: ms });
const untimed = (variant: string, error?: string) => ({ variant, ms: null, median_ms: null, error });

it("times, gains, why something was not measured, and what failed", () => {
  const text = describeChoices([
    chosen("matmul 512", [timed("first", 100), timed("second", 12.5)]),
    chosen("matmul 4", [timed("first", 0.5), untimed("second", "its result is off by 0.5")]),
    { ...chosen("conv2d 8", [untimed("first"), untimed("second")]), unmeasured: "no time was left" },
  ]);
  expect(text).toBe(`\
operation   chosen  ms     built-in ms  gain
matmul 512  second   12.5          100     8.00×
matmul 4    first   0.500        0.500  built-in
conv2d 8    first   –      –            built-in

not measured:
  conv2d 8: no time was left

not chosen because they failed:
  matmul 4: second: its result is off by 0.5
`);
});

it("without gaps nothing is added", () => {
  const text = describeChoices([chosen("matmul 512", [timed("first", 100), timed("second", 90)])]);
  expect(text.split("\n")).toHaveLength(3);
});
