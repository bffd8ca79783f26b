// The seed contract: starting noise as a pure function of (seed, channel, frame, row, column).
// Knows nothing of models or devices. Because a value depends only on its latent position, a larger picture
// begins with the same noise as a smaller one in the shared corner, and every device starts from the same numbers.
// A JavaScript engine may round the last bit of ln, cos or sin differently; after rounding to float32 that shows
// in about one value in 10⁸.

import { assert, DaybreakError } from "../../errors.js";
import { philox4x32 } from "./philox.js";

const seedLimit = 1n << 64n;

/**
 * Starting noise z(seed, c, f, row, col), standard normal, in the order [C, h, w] or [C, f, h, w].
 *
 * Philox4x32-10 with key (low, high) 32 bits of the seed and counter (col, row, c >> 2, f), f = 0 for pictures, gives four
 * words; the pairs (r0, r1) and (r2, r3) become two normals each by Box–Muller: u = (r_even + 1)·2⁻³², θ = 2π·r_odd·2⁻³²,
 * √(−2 ln u)·(cos θ, sin θ) in float64, rounded to float32. Channel c takes lane c & 3.
 *
 * @param seed 0 ≤ seed < 2⁶⁴, else `request.seed_invalid`
 */
export function gaussianNoise(seed: bigint, shape: readonly number[]): Float32Array {
  checkSeed(seed);
  assert(
    (shape.length === 3 || shape.length === 4) && shape.every((extent) => Number.isInteger(extent) && extent > 0),
    `got noise of shape [${shape}], expected three or four positive integers`,
  );
  const channels = shape[0]!;
  const frames = shape.length === 4 ? shape[1]! : 1;
  const [height, width] = shape.slice(-2) as [number, number];
  const key0 = Number(seed & 0xffffffffn);
  const key1 = Number(seed >> 32n);
  const plane = height * width;
  const noise = new Float32Array(channels * frames * plane);
  const words = new Uint32Array(4);

  for (let group = 0; group * 4 < channels; group++) {
    const lanes = Math.min(4, channels - group * 4);
    for (let frame = 0; frame < frames; frame++) {
      for (let row = 0; row < height; row++) {
        for (let col = 0; col < width; col++) {
          philox4x32(col, row, group, frame, key0, key1, words);
          let at = (group * 4 * frames + frame) * plane + row * width + col;
          for (let lane = 0; lane < lanes; lane += 2) {
            const radius = Math.sqrt(-2 * Math.log((words[lane]! + 1) * 2 ** -32));
            const angle = 2 * Math.PI * words[lane + 1]! * 2 ** -32;
            noise[at] = radius * Math.cos(angle);
            if (lane + 1 < lanes) noise[at + frames * plane] = radius * Math.sin(angle);
            at += 2 * frames * plane;
          }
        }
      }
    }
  }
  return noise;
}

/** The seed of image `index` of a request: seed + index mod 2⁶⁴. */
export function imageSeed(seed: bigint, index: number): bigint {
  checkSeed(seed);
  return BigInt.asUintN(64, seed + BigInt(index));
}

/** A seed drawn from the platform's cryptographic generator, for requests that name none. */
export function randomSeed(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0]!;
}

/**
 * A seed drawn at random that every JSON reader can hold, as it can the seeds of the further images of its request: none
 * of them is above 2⁵³ − 1.
 */
export function randomSafeSeed(images: number): bigint {
  return randomSeed() % (BigInt(Number.MAX_SAFE_INTEGER) - BigInt(images - 1) + 1n);
}

/** Throws `request.seed_invalid` unless 0 ≤ seed < 2⁶⁴. */
export function checkSeed(seed: bigint): void {
  if (typeof seed === "bigint" && seed >= 0n && seed < seedLimit) return;
  const got = typeof seed === "bigint" ? String(seed) : `${String(seed)}, a ${typeof seed} and no bigint`;
  throw new DaybreakError(
    "request.seed_invalid",
    `got seed ${got}, expected an integer from 0 to ${seedLimit - 1n}: choose one in that range`,
  );
}
