// RGB to what video encoders take: planes of Y, and of Cb and Cr at half the size, BT.709, limited range.
// The one place that knows this conversion; every encoder is fed the same bytes and tags them the same way.

import type { RgbImage, Size } from "../engine/images.js";
import { assert } from "../errors.js";

/** How a video of these planes is tagged. */
export const videoColours = { primaries: "bt709", transfer: "bt709", matrix: "bt709", fullRange: false } as const;

const one = 65536;
const fixed = (factor: number) => Math.round(factor * one);
const [yr, yg, yb] = [0.2126, 0.7152, 0.0722].map((weight) => fixed((weight * 219) / 255)) as [number, number, number];
const [ur, ug] = [0.2126, 0.7152].map((weight) => fixed((-weight / 1.8556) * (224 / 255))) as [number, number];
const [vg, vb] = [0.7152, 0.0722].map((weight) => fixed((-weight / 1.5748) * (224 / 255))) as [number, number];
const half = fixed(0.5 * (224 / 255));

/**
 * The planes Y, Cb, Cr one after the other (I420); chroma is the mean of four pixels. Sides must be even.
 * Source: ITU-R BT.709-6, §3.
 */
export function rgbToI420({ width, height, data }: RgbImage): Uint8Array {
  assert(width % 2 === 0 && height % 2 === 0, `got a frame of ${width}×${height} pixels, expected even sides`);
  assert(data.length === width * height * 3, `got ${data.length} bytes for ${width}×${height} pixels, expected RGB`);
  const area = width * height;
  const planes = new Uint8Array((area * 3) / 2);
  for (let row = 0; row < height; row += 2) {
    let chroma = area + (row >> 1) * (width >> 1);
    for (let column = 0; column < width; column += 2, chroma++) {
      let [r, g, b] = [0, 0, 0];
      for (let corner = 0; corner < 4; corner++) {
        const at = (row + (corner >> 1)) * width + column + (corner & 1);
        const red = data[at * 3]!;
        const green = data[at * 3 + 1]!;
        const blue = data[at * 3 + 2]!;
        planes[at] = (yr * red + yg * green + yb * blue + 16.5 * one) >> 16;
        r += red;
        g += green;
        b += blue;
      }
      planes[chroma] = (ur * r + ug * g + half * b + 128.5 * 4 * one) >> 18;
      planes[chroma + area / 4] = (half * r + vg * g + vb * b + 128.5 * 4 * one) >> 18;
    }
  }
  return planes;
}

/** Planes of Y alone, rows of `pitch` bytes, as a picture in grey. */
export function greyImage({ width, height }: Size, luma: Uint8Array, pitch = width): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0, from = y * pitch; x < width; x++, from++, to += 3) {
      data[to] = data[to + 1] = data[to + 2] = luma[from]!;
    }
  }
  return { width, height, data };
}
