// The seed contract: known answers of Philox, fixed vectors, independence of size, and the distribution.

import { describe, expect, it } from "vitest";
import { checkSeed, gaussianNoise, imageSeed, randomSeed } from "../../../src/engine/sampling/noise.js";
import { philox4x32 } from "../../../src/engine/sampling/philox.js";

const lastSeed = 2n ** 64n - 1n;

/** The contract written out once more with BigInt products, as slow as it is plain. */
function noiseAt(seed: bigint, c: number, row: number, col: number, frame = 0): number {
  const mask = 0xffffffffn;
  let counter = [BigInt(col), BigInt(row), BigInt(c >> 2), BigInt(frame)];
  let key = [seed & mask, seed >> 32n];
  for (let round = 0; round < 10; round++) {
    const product0 = 0xd2511f53n * counter[0]!;
    const product1 = 0xcd9e8d57n * counter[2]!;
    counter = [
      (product1 >> 32n) ^ counter[1]! ^ key[0]!,
      product1 & mask,
      (product0 >> 32n) ^ counter[3]! ^ key[1]!,
      product0 & mask,
    ];
    key = [(key[0]! + 0x9e3779b9n) & mask, (key[1]! + 0xbb67ae85n) & mask];
  }
  const pair = c & 2;
  const u = (Number(counter[pair]!) + 1) / 2 ** 32;
  const angle = (2 * Math.PI * Number(counter[pair + 1]!)) / 2 ** 32;
  return Math.fround(Math.sqrt(-2 * Math.log(u)) * ((c & 1) === 0 ? Math.cos(angle) : Math.sin(angle)));
}

describe("Philox4x32-10", () => {
  // Random123's kat_vectors: counter, key, answer
  it.each([
    [[0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    [[0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff], "408f276d 41c83b0e a20bc7c6 6d5451fd"],
    [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], "d16cfe09 94fdcceb 5001e420 24126ea1"],
  ])("gives the published answer for counter %j, key %j", (counter, key, expected) => {
    const [c0, c1, c2, c3] = counter as [number, number, number, number];
    const [k0, k1] = key as [number, number];
    const out = new Uint32Array(4);
    philox4x32(c0, c1, c2, c3, k0, k1, out);
    expect([...out].map((word) => word.toString(16).padStart(8, "0")).join(" ")).toBe(expected);
  });
});

describe("gaussianNoise", () => {
  // The vectors that README prints: any change here changes every picture of every seed.
  it.each<[bigint, [number, number, number], number]>([
    [0n, [0, 0, 0], 0.9911377],
    [0n, [1, 0, 0], -0.9246626],
    [0n, [5, 3, 2], -0.4283489],
    [0n, [127, 63, 63], -1.290152],
    [7n, [2, 1, 0], -0.2748809],
    [lastSeed, [0, 0, 0], 1.0985957],
    [lastSeed, [5, 3, 2], -0.3614231],
  ])("z(%d, %j) is the published value", (seed, [c, row, col], expected) => {
    const latents = gaussianNoise(seed, [c + 1, row + 1, col + 1]);
    expect(latents[latents.length - 1]).toBeCloseTo(expected, 6);
  });

  it("equals the contract written with BigInt, also where the channels do not fill a lane group", () => {
    for (const seed of [0n, 1n, 0x1234567890abcdefn, lastSeed]) {
      for (const [channels, height, width] of [
        [1, 2, 3],
        [6, 3, 5],
        [16, 2, 2],
      ] as const) {
        const latents = gaussianNoise(seed, [channels, height, width]);
        expect(latents.length).toBe(channels * height * width);
        latents.forEach((value, i) => {
          const c = Math.floor(i / (height * width));
          expect(value).toBe(noiseAt(seed, c, Math.floor(i / width) % height, i % width));
        });
      }
    }
  });

  it("has the frame in the counter, and of frame 0 the noise of a picture", () => {
    const [channels, frames, height, width] = [6, 3, 2, 5];
    const clip = gaussianNoise(7n, [channels, frames, height, width]);
    clip.forEach((value, i) => {
      const [c, frame] = [Math.floor(i / (frames * height * width)), Math.floor(i / (height * width)) % frames];
      expect(value).toBe(noiseAt(7n, c, Math.floor(i / width) % height, i % width, frame));
    });
    const picture = gaussianNoise(7n, [channels, height, width]);
    expect(clip.subarray(0, height * width)).toEqual(picture.subarray(0, height * width));
  });

  it("does not depend on the picture's size", () => {
    const small = gaussianNoise(42n, [8, 3, 4]);
    const large = gaussianNoise(42n, [12, 7, 9]);
    small.forEach((value, i) => {
      const [c, row, col] = [Math.floor(i / 12), Math.floor(i / 4) % 3, i % 4];
      expect(value).toBe(large[(c * 7 + row) * 9 + col]);
    });
  });

  it("is standard normal, without correlation between lanes, rows, columns or seeds", () => {
    const [channels, height, width] = [128, 64, 64];
    const z = gaussianNoise(3n, [channels, height, width]);
    const other = gaussianNoise(4n, [channels, height, width]);
    const n = z.length;
    const mean = (f: (i: number) => number, count = n) => {
      let sum = 0;
      for (let i = 0; i < count; i++) sum += f(i);
      return sum / count;
    };
    // five standard errors of each estimate
    const bound = (variance: number) => 5 * Math.sqrt(variance / n);
    expect(Math.abs(mean((i) => z[i]!))).toBeLessThan(bound(1));
    expect(Math.abs(mean((i) => z[i]! ** 2) - 1)).toBeLessThan(bound(2));
    expect(Math.abs(mean((i) => z[i]! ** 3))).toBeLessThan(bound(15));
    expect(Math.abs(mean((i) => z[i]! ** 4) - 3)).toBeLessThan(bound(96));
    for (const shift of [1, width, height * width, 2 * height * width, 4 * height * width]) {
      expect(Math.abs(mean((i) => z[i]! * z[i + shift]!, n - shift))).toBeLessThan(bound(1.2));
    }
    expect(Math.abs(mean((i) => z[i]! * other[i]!))).toBeLessThan(bound(1));
    const tail = mean((i) => (Math.abs(z[i]!) > 3 ? 1 : 0));
    expect(Math.abs(tail - 0.0026998)).toBeLessThan(bound(0.0027));
    expect(z.every(Number.isFinite)).toBe(true);
  });

  it("asserts its extents", () => {
    expect(() => gaussianNoise(0n, [0, 1, 1])).toThrow(/\[0,1,1\], expected three or four positive integers/);
    expect(() => gaussianNoise(0n, [1, 1.5, 1])).toThrow(/\[1,1.5,1\]/);
  });
});

describe("seeds", () => {
  it.each([-1n, 2n ** 64n, 7 as unknown as bigint, undefined as unknown as bigint])("refuses %s", (seed) => {
    for (const run of [() => checkSeed(seed), () => gaussianNoise(seed, [1, 1, 1]), () => imageSeed(seed, 0)]) {
      expect(run).toThrow(expect.objectContaining({ code: "request.seed_invalid" }));
    }
  });

  it("image i uses seed + i mod 2⁶⁴", () => {
    expect(imageSeed(7n, 3)).toBe(10n);
    expect(imageSeed(lastSeed, 2)).toBe(1n);
  });

  it("draws seeds that are valid and differ", () => {
    const seeds = Array.from({ length: 8 }, randomSeed);
    for (const seed of seeds) checkSeed(seed);
    expect(new Set(seeds).size).toBe(8);
  });
});
