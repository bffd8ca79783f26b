// Pictures that tests make up, and how far two pictures lie apart.

import type { RgbImage } from "../../src/engine/request.js";

/** Smooth colours, an edge and a little noise; `phase` moves them, as the frames of a video do. */
export function syntheticImage(width: number, height: number, phase = 0): RgbImage {
  const data = new Uint8Array(width * height * 3);
  let state = 1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      const noise = ((state >>> 24) - 128) / 40;
      const isInside = (x - width / 2 - phase) ** 2 + (y - height / 2) ** 2 < (Math.min(width, height) / 3) ** 2;
      const at = (y * width + x) * 3;
      data[at] = 128 + 90 * Math.sin((x + phase) / 37) * Math.cos(y / 53) + noise;
      data[at + 1] = 128 + 80 * Math.sin((x + y + phase) / 71) + noise;
      data[at + 2] = (isInside ? 190 : 70) + noise;
    }
  }
  return { width, height, data };
}

/** One colour everywhere. */
export function solidImage(width: number, height: number, colour: readonly number[]): RgbImage {
  return { width, height, data: Uint8Array.from({ length: width * height * 3 }, (_, i) => colour[i % 3]!) };
}

/** Peak signal to noise in decibels; Infinity for equal pictures. */
export function psnr(a: RgbImage, b: RgbImage): number {
  if (a.width !== b.width || a.height !== b.height || a.data.length !== b.data.length) return Number.NaN;
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) sum += (a.data[i]! - b.data[i]!) ** 2;
  return 10 * Math.log10((255 * 255 * a.data.length) / sum);
}
