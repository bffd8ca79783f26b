// Rotary position table of the Qwen3 text encoder, in the reference's float32 arithmetic.
// Knows positions, not tokens. Entry j turns the channel pair (j, j + D/2): Qwen3 rotates halves, FLUX.2's
// transformer adjacent pairs.

import { assert } from "../../../errors.js";

const { fround } = Math;

/**
 * cos and sin of position·θ^(−2j/D), each [T, D/2] row-major. The exponent, the power, its reciprocal and the angle
 * are each rounded to float32, then cos and sin are taken and rounded.
 * Source: transformers' Qwen3RotaryEmbedding with the default rope type (its table repeats these D/2 columns twice).
 *
 * @param positions [T]; a pad row keeps its index as its position
 * @param headDim D, even
 * @param theta `rope_theta`
 */
export function ropeTable(
  positions: ArrayLike<number>,
  headDim: number,
  theta: number,
): { cos: Float32Array; sin: Float32Array } {
  assert(
    Number.isInteger(headDim) && headDim > 0 && headDim % 2 === 0,
    `got head size ${headDim}, expected a positive even number`,
  );
  const half = headDim / 2;
  const cos = new Float32Array(positions.length * half);
  const sin = new Float32Array(positions.length * half);
  for (let j = 0; j < half; j++) {
    const frequency = fround(1 / fround(theta ** fround((2 * j) / headDim)));
    for (let t = 0; t < positions.length; t++) {
      const angle = fround(positions[t]! * frequency);
      cos[t * half + j] = Math.cos(angle);
      sin[t * half + j] = Math.sin(angle);
    }
  }
  return { cos, sin };
}
