// The transforms of two dimensions against the sums that define them.

import { describe, expect, it } from "vitest";
import { type Grid, makeGrid, type Sign, transform, transformRows, transpose } from "../../src/watermark/fft.js";
import { numbersFrom } from "./cases.js";

function randomGrid(width: number, height: number): Grid {
  const grid = makeGrid(width, height);
  const next = numbersFrom(width * 1000 + height);
  for (const part of [grid.re, grid.im]) for (let i = 0; i < part.length; i++) part[i] = next() - 0.5;
  return grid;
}

/** Σ z(x, y)·e^(±2πi(u·x/w + v·y/h)), at [u][v]: transposed, as the program leaves it. */
function sums({ width, height, re, im }: Grid, sign: Sign): { re: number[]; im: number[] } {
  const result = { re: [] as number[], im: [] as number[] };
  for (let u = 0; u < width; u++) {
    for (let v = 0; v < height; v++) {
      let [real, imaginary] = [0, 0];
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const angle = sign * 2 * Math.PI * ((u * x) / width + (v * y) / height);
          const at = y * width + x;
          real += re[at]! * Math.cos(angle) - im[at]! * Math.sin(angle);
          imaginary += re[at]! * Math.sin(angle) + im[at]! * Math.cos(angle);
        }
      }
      result.re.push(real);
      result.im.push(imaginary);
    }
  }
  return result;
}

function largestDifference(one: ArrayLike<number>, other: ArrayLike<number>): number {
  expect(one.length).toBe(other.length);
  return Array.from(one).reduce((most, value, i) => Math.max(most, Math.abs(value - other[i]!)), 0);
}

describe.each([-1, 1] as const)("the transform with the sign %d", (sign) => {
  it.each([
    [2, 2],
    [2, 16],
    [32, 4],
    [32, 32],
  ])("of %d×%d numbers is the sum that defines it", (width, height) => {
    const grid = randomGrid(width, height);
    const expected = sums(grid, sign);
    const result = makeGrid(height, width);
    transform(grid, result, sign);
    expect(largestDifference(result.re, expected.re)).toBeLessThan(1e-11);
    expect(largestDifference(result.im, expected.im)).toBeLessThan(1e-11);
  });

  it("is undone by the other", () => {
    const [grid, between, back] = [randomGrid(128, 64), makeGrid(64, 128), makeGrid(128, 64)];
    const before = grid.re.slice();
    transform(grid, between, sign);
    transform(between, back, sign === 1 ? -1 : 1);
    const scaled = back.re.map((value) => value / (128 * 64));
    expect(largestDifference(scaled, before)).toBeLessThan(1e-12);
  });
});

it("rows that are not asked for stay as they are", () => {
  const [grid, whole] = [randomGrid(16, 8), randomGrid(16, 8)];
  const before = grid.re.slice();
  transformRows(grid, -1, 3, 5);
  transformRows(whole, -1);
  expect([...grid.re.subarray(3 * 16, 5 * 16)]).toEqual([...whole.re.subarray(3 * 16, 5 * 16)]);
  expect([...grid.re.subarray(0, 3 * 16)]).toEqual([...before.subarray(0, 3 * 16)]);
  expect([...grid.re.subarray(5 * 16)]).toEqual([...before.subarray(5 * 16)]);
});

it("a transpose exchanges rows and columns of any size", () => {
  const grid = randomGrid(64, 8);
  const turned = makeGrid(8, 64);
  transpose(grid, turned);
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 64; x++) {
      expect(turned.rows[x]!.re[y]).toBe(grid.rows[y]!.re[x]);
      expect(turned.rows[x]!.im[y]).toBe(grid.rows[y]!.im[x]);
    }
  }
});
