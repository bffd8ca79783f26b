// References as callers send them. The server welcomes small ones and enlarges them to what the model takes, and scales large
// ones down at once, so that a full queue of them stays small. Knows files by images.ts; sizes are judged by the header,
// before decoding.

import { lanczosResize, type RgbImage, type Size } from "../engine/images.js";
import { checkReferenceAspect, checkReferenceSize, type ReferenceLimits, scaledSize } from "../engine/references.js";
import { decodeImage, imageSize } from "./images.js";

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
  const { width, height } = usedSize(limits, image);
  return lanczosResize(image, width, height);
}

/**
 * What {@link decodeAnyReference} will make of a file, from its header alone: the size of its pixels, upright, and the
 * size in which it is used. Errors: those of that function that need no pixels.
 */
export function anyReferenceSize(bytes: Uint8Array, limits: ReferenceLimits): { stored: Size; used: Size } {
  const stored = imageSize(bytes, (size) => checkReferenceAspect(limits, size));
  return { stored, used: usedSize(limits, stored) };
}

function usedSize(limits: ReferenceLimits, { width, height }: Size): Size {
  const shortest = Math.min(width, height);
  if (shortest >= limits.minSide) return scaledSize(limits, { width, height });
  const scaled = (side: number) => Math.round((side * limits.minSide) / shortest);
  return { width: scaled(width), height: scaled(height) };
}
