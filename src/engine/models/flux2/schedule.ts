// The noise schedule of FLUX.2 and the sinusoid that tells the transformer where in it a step is.
// Knows step and token counts, not pictures. Every rounding to float32 below is one that the reference makes:
// the results equal diffusers' bit for bit, except where its vectorised exp, cos and sin round the last bit otherwise.

import { assert } from "../../../errors.js";

const { fround } = Math;

/** `sigmas` [steps + 1] falls from 1 to a final 0; `timesteps` [steps] is 1000·sigma. */
export type Schedule = { sigmas: Float32Array; timesteps: Float32Array; mu: number };

/**
 * Sigmas and timesteps of a run: s_i = linspace(1, 1/N, N), σ_i = e^mu / (e^mu + (1/s_i − 1)), then 0.
 * Source: diffusers' FlowMatchEulerDiscreteScheduler with `use_dynamic_shifting`, in float32 as there.
 *
 * @param steps N, a positive integer
 * @param tokens output tokens only, (H/16)·(W/16): sigmas depend on output tokens only, references do not count
 */
export function schedule(steps: number, tokens: number): Schedule {
  assert(Number.isInteger(steps) && steps > 0, `got ${steps} steps, expected a positive integer`);
  assert(Number.isInteger(tokens) && tokens > 0, `got ${tokens} tokens, expected a positive integer`);
  const mu = empiricalMu(tokens, steps);
  const shift = fround(Math.exp(mu));
  const sigmas = new Float32Array(steps + 1);
  const timesteps = new Float32Array(steps);
  // numpy's linspace: i·step + start in float64, the last value set to the end exactly.
  const spacing = (1 / steps - 1) / (steps - 1);
  for (let i = 0; i < steps; i++) {
    const s = fround(i === 0 ? 1 : i === steps - 1 ? 1 / steps : i * spacing + 1);
    const sigma = fround(shift / fround(shift + fround(fround(1 / s) - 1)));
    sigmas[i] = sigma;
    timesteps[i] = fround(sigma * 1000);
  }
  return { sigmas, timesteps, mu };
}

/**
 * The shift that BFL fitted to sequence length and step count (`compute_empirical_mu`).
 * Above 4300 tokens it ignores the step count, and drops discontinuously there: the reference does so too.
 */
function empiricalMu(tokens: number, steps: number): number {
  const at200 = 0.00016927 * tokens + 0.45666666;
  if (tokens > 4300) return at200;
  const at10 = 8.73809524e-5 * tokens + 1.89833333;
  const slope = (at200 - at10) / 190;
  const intercept = at200 - 200 * slope;
  return slope * steps + intercept;
}

/**
 * Sinusoidal embedding of timesteps, [n, channels] row-major, cosines first: f_i = exp(−ln(10000)·i/half),
 * half = channels/2, row = [cos(τ f_0) … cos(τ f_{half−1}) | sin(τ f_0) …].
 * Source: diffusers' `Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)`.
 *
 * @param timesteps [n] 1000·sigma, from {@link schedule}
 * @param channels `timestep_guidance_channels`; an odd count leaves the last column 0, as in the reference
 */
export function timestepEmbedding(timesteps: Float32Array, channels: number): Float32Array {
  assert(Number.isInteger(channels) && channels >= 2, `got ${channels} channels, expected an integer of at least 2`);
  const half = channels >> 1;
  const embedding = new Float32Array(timesteps.length * channels);
  const negativeLog = fround(-Math.log(10000));
  for (let i = 0; i < half; i++) {
    const frequency = fround(Math.exp(fround(fround(negativeLog * i) / half)));
    for (let n = 0; n < timesteps.length; n++) {
      // The pipeline divides by 1000, the transformer multiplies again, both in float32.
      const tau = fround(fround(timesteps[n]! / 1000) * 1000);
      const angle = fround(tau * frequency);
      embedding[n * channels + i] = Math.cos(angle);
      embedding[n * channels + half + i] = Math.sin(angle);
    }
  }
  return embedding;
}
