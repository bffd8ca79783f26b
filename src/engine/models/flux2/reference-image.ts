// What happens to a reference image before the VAE sees it: limits, downscaling, centre crop, normalisation.
// Owns the limits on references for every caller (media/ checks file headers against them before decoding) and knows
// no file formats. Pixels equal diffusers' byte for byte, so the resize repeats Pillow's integer arithmetic:
// LANCZOS is antialiased, in two passes with an 8-bit image between them.

import { assert, DaybreakError } from "../../../errors.js";
import type { RgbImage } from "../../request.js";

/** Shortest side, in pixels. */
export const minReferenceSide = 64;
/** Longest side over shortest. */
export const maxReferenceAspect = 8;
/** Largest area before downscaling, in pixels: 64 megapixels. */
export const maxReferencePixels = 64 * 1024 * 1024;
/** References of a larger area are scaled down to about this one; none is ever enlarged. */
export const referenceArea = 1024 * 1024;

/**
 * Checks a reference's size in pixels, which a file's header tells before anything is decoded.
 * Errors: `reference.too_small`, `reference.aspect_ratio`, `reference.too_large`.
 */
export function checkReferenceSize(width: number, height: number): void {
  const got = `got a reference of ${width}×${height} pixels`;
  if (width < minReferenceSide || height < minReferenceSide) {
    throw new DaybreakError(
      "reference.too_small",
      `${got}, expected at least ${minReferenceSide} on each side: use a larger image`,
    );
  }
  if (Math.max(width / height, height / width) > maxReferenceAspect) {
    throw new DaybreakError(
      "reference.aspect_ratio",
      `${got}, expected sides of at most ${maxReferenceAspect}:1: crop the image`,
    );
  }
  checkReferenceArea(width, height);
}

/** The part of {@link checkReferenceSize} that bounds memory: `reference.too_large` above 64 megapixels. */
export function checkReferenceArea(width: number, height: number): void {
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
export function checkReference(image: RgbImage): void {
  const { width, height, data } = image ?? {};
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1 || !isBytes(data)) {
    throw new DaybreakError(
      "reference.not_an_image",
      `got a reference with width ${width}, height ${height} and data ${data?.constructor?.name ?? typeof data}, ` +
        "expected positive integers and a Uint8Array of RGB bytes",
    );
  }
  checkReferenceSize(width, height);
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

/**
 * The size that {@link prepareReference} gives an image of `width`×`height` pixels.
 * @param multiple pixels per latent position, 2 · the VAE's scale factor
 */
export function preparedSize(width: number, height: number, multiple = 16): { width: number; height: number } {
  const scaled = scaledSize(width, height);
  return { width: scaled.width - (scaled.width % multiple), height: scaled.height - (scaled.height % multiple) };
}

function scaledSize(width: number, height: number): { width: number; height: number } {
  if (width * height <= referenceArea) return { width, height };
  const scale = Math.sqrt(referenceArea / (width * height));
  return { width: Math.trunc(width * scale), height: Math.trunc(height * scale) };
}

/**
 * Checks an image, scales it down to an area of 1024² if it is larger, and crops both sides about the centre to
 * multiples of `multiple`. Source: diffusers' Flux2KleinPipeline and Flux2ImageProcessor.
 * @param multiple pixels per latent position, 2 · the VAE's scale factor
 * @returns a new image, or the same one where nothing had to be done
 */
export function prepareReference(image: RgbImage, multiple = 16): RgbImage {
  const scaled = scaleReference(image);
  const { width, height } = preparedSize(scaled.width, scaled.height, multiple);
  return centreCrop(scaled, width, height);
}

/**
 * The first half of {@link prepareReference}, for those who keep references before they are used: checks an image and
 * scales it down to an area of 1024² if it is larger. Preparing the result gives what preparing `image` gives.
 */
export function scaleReference(image: RgbImage): RgbImage {
  checkReference(image);
  const { width, height } = scaledSize(image.width, image.height);
  return lanczosResize(image, width, height);
}

function centreCrop(image: RgbImage, width: number, height: number): RgbImage {
  if (width === image.width && height === image.height) return image;
  const left = (image.width - width) >> 1;
  const top = (image.height - height) >> 1;
  const data = new Uint8Array(width * height * 3);
  for (let row = 0; row < height; row++) {
    const from = ((top + row) * image.width + left) * 3;
    data.set(image.data.subarray(from, from + width * 3), row * width * 3);
  }
  return { width, height, data };
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

/** Fraction bits of Pillow's fixed-point filter weights. */
const weightBits = 22;
const lanczosSupport = 3;

/** The taps of one output position: input positions first … first + weights.length − 1. */
type Taps = { first: number; weights: Int32Array };

/**
 * Resizes exactly as Pillow's `resize((width, height), LANCZOS)` does on an RGB image: rows first, then columns,
 * an 8-bit image between them; an axis that does not change is left alone.
 */
export function lanczosResize(image: RgbImage, width: number, height: number): RgbImage {
  assert(
    Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0,
    `got a size of ${width}×${height}, expected positive integers`,
  );
  let { data } = image;
  if (width !== image.width) data = resizeRows(data, image.width, image.height, lanczosTaps(image.width, width));
  if (height !== image.height) data = resizeColumns(data, width, lanczosTaps(image.height, height));
  return { width, height, data };
}

/** [rows, cols, 3] → [rows, taps.length, 3]. */
function resizeRows(data: Uint8Array, cols: number, rows: number, taps: readonly Taps[]): Uint8Array {
  const resized = new Uint8Array(rows * taps.length * 3);
  let to = 0;
  for (let row = 0; row < rows; row++) {
    for (const { first, weights } of taps) {
      let red = 1 << (weightBits - 1);
      let green = red;
      let blue = red;
      let from = (row * cols + first) * 3;
      for (let i = 0; i < weights.length; i++) {
        const weight = weights[i]!;
        red += data[from]! * weight;
        green += data[from + 1]! * weight;
        blue += data[from + 2]! * weight;
        from += 3;
      }
      resized[to] = clampToByte(red);
      resized[to + 1] = clampToByte(green);
      resized[to + 2] = clampToByte(blue);
      to += 3;
    }
  }
  return resized;
}

/** [rows, cols, 3] → [taps.length, cols, 3]; sums a whole row at a time, so that reads are in memory order. */
function resizeColumns(data: Uint8Array, cols: number, taps: readonly Taps[]): Uint8Array {
  const pitch = cols * 3;
  const resized = new Uint8Array(taps.length * pitch);
  const sums = new Float64Array(pitch);
  for (const [row, { first, weights }] of taps.entries()) {
    sums.fill(1 << (weightBits - 1));
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i]!;
      const from = (first + i) * pitch;
      for (let x = 0; x < pitch; x++) sums[x] = sums[x]! + data[from + x]! * weight;
    }
    for (let x = 0; x < pitch; x++) resized[row * pitch + x] = clampToByte(sums[x]!);
  }
  return resized;
}

// Sums are float64: exact far beyond what 22 fraction bits need, where int32 would be near its end.
function clampToByte(sum: number): number {
  return Math.min(255, Math.max(0, Math.floor(sum / 2 ** weightBits)));
}

/** Filter weights of every output position, in fixed point. Source: Pillow's Resample.c, `precompute_coeffs`. */
function lanczosTaps(inSize: number, outSize: number): Taps[] {
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1);
  const support = lanczosSupport * filterScale;
  return Array.from({ length: outSize }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(inSize, Math.trunc(centre + support + 0.5));
    const exact = Array.from({ length: end - first }, (_, x) =>
      lanczos((x + first - centre + 0.5) * (1 / filterScale)),
    );
    const sum = exact.reduce((total, weight) => total + weight, 0);
    const weights = Int32Array.from(exact, (weight) => {
      const fixed = (sum === 0 ? weight : weight / sum) * 2 ** weightBits;
      return Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    });
    return { first, weights };
  });
}

function lanczos(x: number): number {
  return x >= -lanczosSupport && x < lanczosSupport ? sinc(x) * sinc(x / lanczosSupport) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}
