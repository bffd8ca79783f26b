// References as callers send them. The server welcomes small ones and enlarges them to what the model takes, and scales large
// ones down at once, so that a full queue of them stays small. Knows files by images.ts; sizes are judged by the header,
// before decoding.

import { lanczosResize, type RgbImage } from "../engine/images.js";
import {
  checkReferenceAspect,
  checkReferenceSize,
  type ReferenceLimits,
  scaleReference,
} from "../engine/references.js";
import { decodeImage } from "./images.js";

/**
 * Decodes a PNG, JPEG or WebP file whose size a model takes.
 * Errors: those of {@link decodeImage}, `reference.too_small`, `reference.aspect_ratio`.
 */
export function decodeReference(bytes: Uint8Array, limits: ReferenceLimits): Promise<RgbImage> {
  return decodeImage(bytes, (size) => checkReferenceSize(limits, size));
}

/**
 * Decodes a PNG, JPEG or WebP file; an image with a side that is too short is scaled up so that its shortest is just long
 * enough, one of a larger area than the model uses is scaled down to that, as the engine would do later.
 * Errors: those of {@link decodeReference} but `reference.too_small`.
 */
export async function decodeAnyReference(bytes: Uint8Array, limits: ReferenceLimits): Promise<RgbImage> {
  const image = await decodeImage(bytes, (size) => checkReferenceAspect(limits, size));
  const shortest = Math.min(image.width, image.height);
  if (shortest >= limits.minSide) return scaleReference(limits, image);
  const scaled = (side: number) => Math.round((side * limits.minSide) / shortest);
  return lanczosResize(image, scaled(image.width), scaled(image.height));
}
