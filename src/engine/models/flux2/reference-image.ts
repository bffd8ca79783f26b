// What happens to a reference image before the VAE sees it: downscaling, centre crop, normalisation. Knows no file format.
// Pixels equal diffusers' byte for byte.

import { centreCrop, type RgbImage, type Size } from "../../images.js";
import { type ReferenceLimits, scaledSize, scaleReference } from "../../references.js";

/** Source: diffusers' Flux2ImageProcessor. */
export const referenceLimits: ReferenceLimits = { minSide: 64, maxAspect: 8, area: 1024 * 1024 };

/**
 * The size that {@link prepareReference} gives an image.
 * @param multiple pixels per latent position, 2 · the VAE's scale factor
 */
export function preparedSize(size: Size, multiple = 16): Size {
  const { width, height } = scaledSize(referenceLimits, size);
  return { width: width - (width % multiple), height: height - (height % multiple) };
}

/**
 * Checks an image, scales it down to an area of 1024² if it is larger, and crops both sides about the centre to multiples of
 * `multiple`. Source: diffusers' Flux2KleinPipeline and Flux2ImageProcessor.
 * @param multiple pixels per latent position, 2 · the VAE's scale factor
 * @returns a new image, or the same one where nothing had to be done
 */
export function prepareReference(image: RgbImage, multiple = 16): RgbImage {
  const scaled = scaleReference(referenceLimits, image);
  const { width, height } = preparedSize(scaled, multiple);
  return centreCrop(scaled, width, height);
}

/**
 * What the VAE's encoder reads: x/255·2 − 1 in float32, [h, w, 3] row-major, −1 … 1.
 * Source: diffusers' VaeImageProcessor (`pil_to_numpy`, `normalize`): the quotient is rounded to float32 first.
 */
export function normalizeReference(image: RgbImage): Float32Array {
  const normalized = new Float32Array(image.data.length);
  const values = Float32Array.from({ length: 256 }, (_, byte) => 2 * Math.fround(byte / 255) - 1);
  for (let i = 0; i < normalized.length; i++) normalized[i] = values[image.data[i]!]!;
  return normalized;
}
