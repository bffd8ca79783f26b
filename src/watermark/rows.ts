// Pictures as rows of numbers that are computed when they are asked for, so that means over neighbourhoods and what is built
// on them need a few rows of memory instead of whole pictures. Knows luminance and box means, not what they are for.

import type { RgbImage, Size } from "../engine/images.js";

/** Row y of a plane. Rows are asked for in ascending order, each at most once; one is valid until the next is asked for. */
export type Rows = (y: number) => Float64Array;

/** Y of BT.601 (0 … 255) of the part of an image that begins at (left, top) and is `width` wide. */
export function lumaRows({ width: pitch, data }: RgbImage, left = 0, top = 0, width = pitch): Rows {
  const row = new Float64Array(width);
  return (y) => {
    let at = ((top + y) * pitch + left) * 3;
    for (let x = 0; x < width; x++, at += 3) {
      row[x] = 0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!;
    }
    return row;
  };
}

/** Means over (2·radius + 1)² values, those at the edges repeated beyond them. */
export function boxMeans(rows: Rows, { width, height }: Size, radius: number): Rows {
  const span = 2 * radius + 1;
  const recent = lastRows(rows, { width, height }, span);
  const sums = new Float64Array(width);
  const means = new Float64Array(width);
  const area = span * span;
  return (y) => {
    if (y === 0) {
      for (let k = -radius; k <= radius; k++) addRow(sums, recent(k), 1);
    } else {
      // The row that leaves first: reading the one that comes may take its place.
      addRow(sums, recent(y - 1 - radius), -1);
      addRow(sums, recent(y + radius), 1);
    }
    let total = 0;
    for (let k = -radius; k <= radius; k++) total += sums[clamp(k, width)]!;
    means[0] = total / area;
    for (let x = 1; x < width; x++) {
      total += sums[Math.min(width - 1, x + radius)]! - sums[Math.max(0, x - 1 - radius)]!;
      means[x] = total / area;
    }
    return means;
  };
}

/** The same rows, of which the last `count` read stay valid, those at the edges repeated beyond them. */
export function lastRows(rows: Rows, { width, height }: Size, count: number): Rows {
  const ring = Array.from({ length: count }, () => new Float64Array(width));
  let read = -1;
  return (y) => {
    const inside = clamp(y, height);
    while (read < inside) {
      read++;
      ring[read % count]!.set(rows(read));
    }
    return ring[inside % count]!;
  };
}

function addRow(sums: Float64Array, row: Float64Array, sign: number): void {
  for (let x = 0; x < sums.length; x++) sums[x] = sums[x]! + sign * row[x]!;
}

function clamp(at: number, length: number): number {
  return Math.min(length - 1, Math.max(0, at));
}
