// Pictures that tests make up, and how far two pictures lie apart.

import { crc32, deflateSync } from "node:zlib";
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

/** A black PNG of one bit a pixel: by default 64 megapixels in 8 KB, which take about a second to decode. */
export function blackPng({ side = 8192, isDamaged = false } = {}): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header[8] = 1;
  const rows = Buffer.alloc((side / 8 + 1) * side);
  if (isDamaged) rows[rows.length - side / 8 - 1] = 9; // the filter of the last row
  const chunk = (type: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const numbers = Buffer.alloc(8);
    numbers.writeUInt32BE(data.length, 0);
    numbers.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([numbers.subarray(0, 4), body, numbers.subarray(4)]);
  };
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const pixels = chunk("IDAT", deflateSync(rows, { level: 9 }));
  return Buffer.concat([signature, chunk("IHDR", header), pixels, chunk("IEND", Buffer.alloc(0))]);
}
