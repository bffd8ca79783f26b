// The latent walk: where each frame stands between two starting noises, and the noise there. Pure arithmetic.
// Interpolating in a straight line would pass through noise of too small a variance, which denoises to flat pictures;
// along the arc the length is kept.

import { assert } from "../../errors.js";

/**
 * How far frame `frame` of `frames` is from the first noise towards the second, 0 … 1. The walk is a loop: with the
 * phase p = frame/frames it is (1 − cos 2πp)/2, which slows down where it turns, so the loop has no visible seam.
 */
export function walkPosition(frame: number, frames: number): number {
  assert(frame >= 0 && frame < frames, `got frame ${frame} of ${frames}`);
  return (1 - Math.cos((2 * Math.PI * frame) / frames)) / 2;
}

/**
 * Spherical linear interpolation of two whole vectors at t, 0 … 1, in float64:
 * (sin((1 − t)Ω)·from + sin(tΩ)·to) / sin Ω, Ω the angle between them. Vectors of one length keep it; t = 0 and t = 1
 * give the ends exactly. Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
 */
export function slerp(from: Float32Array, to: Float32Array, t: number): Float32Array {
  assert(from.length === to.length, `got vectors of ${from.length} and ${to.length} values, expected one length`);
  let [dot, fromSquared, toSquared] = [0, 0, 0];
  for (let i = 0; i < from.length; i++) {
    dot += from[i]! * to[i]!;
    fromSquared += from[i]! ** 2;
    toSquared += to[i]! ** 2;
  }
  const cosine = dot / Math.sqrt(fromSquared * toSquared);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  // Parallel vectors have no arc between them; noise never is, its latents are too many.
  const isParallel = !(Math.sin(angle) > 1e-6);
  const fromPart = isParallel ? 1 - t : Math.sin((1 - t) * angle) / Math.sin(angle);
  const toPart = isParallel ? t : Math.sin(t * angle) / Math.sin(angle);
  return from.map((a, i) => fromPart * a + toPart * to[i]!);
}
