// Images on the host: 8-bit RGB, and the resizing and cropping that reference pipelines do to them. Knows no file format and
// no model. Pixels equal Pillow's byte for byte, so the resize repeats its integer arithmetic: LANCZOS is antialiased, in
// two passes with an 8-bit image between them.

import { assert } from "../errors.js";

/** In pixels. */
export type Size = { width: number; height: number };

/** Pixels, row-major from the top left: `data` is [height, width, 3], 8-bit sRGB. */
export type RgbImage = Size & { data: Uint8Array };

/** The middle of an image, cut to a size that is no larger than its own; the same image where nothing has to be cut. */
export function centreCrop(image: RgbImage, width: number, height: number): RgbImage {
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
