// References as callers of the server send them: small ones are welcome and enlarged to what the model takes, large ones
// are scaled down at once, so that a full queue of them stays small. Knows files by images.ts and the resize by
// reference-image.ts. Sizes are judged by the header, before decoding.

import {
  lanczosResize,
  maxReferenceAspect,
  minReferenceSide,
  scaleReference,
} from "../engine/models/flux2/reference-image.js";
import type { RgbImage } from "../engine/request.js";
import { DaybreakError } from "../errors.js";
import { decodeReference } from "./images.js";

/**
 * Decodes a PNG, JPEG or WebP file; an image with a side below 64 pixels is scaled up so that its shortest is 64, one of
 * more than 1024² pixels is scaled down to that area, as the engine would do later.
 * Errors: those of {@link decodeReference} but `reference.too_small`.
 */
export async function decodeAnyReference(bytes: Uint8Array): Promise<RgbImage> {
  const image = await decodeReference(bytes, checkAspect);
  const shortest = Math.min(image.width, image.height);
  if (shortest >= minReferenceSide) return scaleReference(image);
  const scaled = (side: number) => Math.round((side * minReferenceSide) / shortest);
  return lanczosResize(image, scaled(image.width), scaled(image.height));
}

function checkAspect(width: number, height: number): void {
  if (Math.max(width, height) <= maxReferenceAspect * Math.min(width, height)) return;
  throw new DaybreakError(
    "reference.aspect_ratio",
    `got a reference of ${width}×${height} pixels, expected sides of at most ${maxReferenceAspect}:1: crop the image`,
  );
}
