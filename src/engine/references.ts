// References: images that a request brings along to be changed or taken things from. Owns what is refused of them; how large
// a model wants them comes from its limits, plain data that crosses to the threads that decode files. Knows no file format.

import { DaybreakError } from "../errors.js";
import { lanczosResize, type RgbImage, type Size } from "./images.js";

/** Largest area before downscaling, in pixels: 64 megapixels, for every model, because it bounds memory. */
export const maxReferencePixels = 64 * 1024 * 1024;

/** What a model takes as a reference. */
export type ReferenceLimits = {
  /** Shortest side, in pixels. */
  minSide: number;
  /** Longest side over shortest. */
  maxAspect: number;
  /** References of a larger area, in pixels, are scaled down to about this one; none is ever enlarged. */
  area: number;
};

/**
 * Checks a reference's size in pixels, which a file's header tells before anything is decoded.
 * Errors: `reference.too_small`, `reference.aspect_ratio`, `reference.too_large`.
 */
export function checkReferenceSize(limits: ReferenceLimits, { width, height }: Size): void {
  const { minSide } = limits;
  if (width < minSide || height < minSide) {
    throw new DaybreakError(
      "reference.too_small",
      `got a reference of ${width}×${height} pixels, expected at least ${minSide} on each side: use a larger image`,
    );
  }
  checkReferenceAspect(limits, { width, height });
  checkReferenceArea({ width, height });
}

/** The part of {@link checkReferenceSize} that holds for an image that is still to be enlarged: `reference.aspect_ratio`. */
export function checkReferenceAspect({ maxAspect }: ReferenceLimits, { width, height }: Size): void {
  if (Math.max(width / height, height / width) <= maxAspect) return;
  throw new DaybreakError(
    "reference.aspect_ratio",
    `got a reference of ${width}×${height} pixels, expected sides of at most ${maxAspect}:1: crop the image`,
  );
}

/** The part of {@link checkReferenceSize} that bounds memory: `reference.too_large` above 64 megapixels. */
export function checkReferenceArea({ width, height }: Size): void {
  if (width * height <= maxReferencePixels) return;
  throw new DaybreakError(
    "reference.too_large",
    `got a reference of ${width}×${height} pixels, expected at most ${maxReferencePixels} pixels (64 megapixels): ` +
      "scale the image down",
  );
}

/**
 * Checks a decoded reference: its size and that `data` holds [height, width, 3] bytes.
 * Errors: those of {@link checkReferenceSize}, `reference.truncated` (too few bytes), `reference.not_an_image`.
 */
export function checkReference(limits: ReferenceLimits, image: RgbImage): void {
  const { width, height, data } = image ?? {};
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1 || !isBytes(data)) {
    throw new DaybreakError(
      "reference.not_an_image",
      `got a reference with width ${width}, height ${height} and data ${data?.constructor?.name ?? typeof data}, ` +
        "expected positive integers and a Uint8Array of RGB bytes",
    );
  }
  checkReferenceSize(limits, { width, height });
  const expected = width * height * 3;
  if (data.length !== expected) {
    throw new DaybreakError(
      data.length < expected ? "reference.truncated" : "reference.not_an_image",
      `got ${data.length} bytes for a reference of ${width}×${height} pixels, expected ${expected}: ` +
        "give three bytes a pixel, RGB, without alpha or row padding",
    );
  }
}

function isBytes(data: unknown): data is Uint8Array {
  return data instanceof Uint8Array;
}

/** The size of an image once it is scaled down to the model's area, if it is larger. */
export function scaledSize({ area }: ReferenceLimits, { width, height }: Size): Size {
  if (width * height <= area) return { width, height };
  const scale = Math.sqrt(area / (width * height));
  return { width: Math.trunc(width * scale), height: Math.trunc(height * scale) };
}

/**
 * Scales an image down to the model's area if it is larger: the first thing that is done to every reference, so that those
 * who keep references before they are used may do it early. Returns the same image where nothing has to be done.
 * Errors: those of {@link checkReference}.
 */
export function scaleReference(limits: ReferenceLimits, image: RgbImage): RgbImage {
  checkReference(limits, image);
  const { width, height } = scaledSize(limits, image);
  return lanczosResize(image, width, height);
}
