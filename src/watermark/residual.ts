// What is left of a picture once most of what it shows is taken away, and that folded onto one tile, where all repetitions of
// the watermark add up. Knows nothing of keys. At most the central 2048 × 2048 pixels are read, which bounds time and memory.

import type { RgbImage, Size } from "../engine/images.js";
import { tileSide } from "./pattern.js";
import { boxMeans, lumaRows, type Rows } from "./rows.js";

/** Residual values, [height, width] row-major. */
export type Plane = Size & { values: Float32Array };

/** Picture x, y of tile coordinates: (a·x + b·y, c·x + d·y). */
export type Matrix = { a: number; b: number; c: number; d: number };

const mostSide = 2048;
const meanRadius = 4;
const spreadRadius = 6;
const leastSpread = 0.5;
const mostResidual = 2.5;

/** The residual of the middle of a picture, or of the picture at half its size: r / (√box(r²) + 0.5) within ±2.5, r = Y − box(Y). */
export function residualOf(image: RgbImage, isHalved: boolean): Plane {
  const factor = isHalved ? 2 : 1;
  const width = Math.min(mostSide, Math.floor(image.width / factor));
  const height = Math.min(mostSide, Math.floor(image.height / factor));
  const size = { width, height };
  const left = (image.width - width * factor) >> 1;
  const top = (image.height - height * factor) >> 1;
  const luma = () => {
    const rows = lumaRows(image, left, top, width * factor);
    return isHalved ? halvedRows(rows, width) : rows;
  };
  const plane = { width, height, values: new Float32Array(width * height) };
  writeDetail(plane, luma(), boxMeans(luma(), size, meanRadius));
  const squares = new Float64Array(width);
  const spread = boxMeans(
    (y) => {
      for (let x = 0; x < width; x++) squares[x] = plane.values[y * width + x]! ** 2;
      return squares;
    },
    size,
    spreadRadius,
  );
  // In place: the box has read the squares of a row, and of six more below it, before the row is overwritten.
  for (let y = 0; y < height; y++) {
    const means = spread(y);
    for (let x = 0, at = y * width; x < width; x++, at++) {
      const scaled = plane.values[at]! / (Math.sqrt(Math.max(0, means[x]!)) + leastSpread);
      plane.values[at] = Math.min(mostResidual, Math.max(-mostResidual, scaled));
    }
  }
  return plane;
}

function writeDetail({ width, height, values }: Plane, luma: Rows, means: Rows): void {
  for (let y = 0; y < height; y++) {
    const [row, mean] = [luma(y), means(y)];
    for (let x = 0; x < width; x++) values[y * width + x] = row[x]! - mean[x]!;
  }
}

/** Means of 2 × 2 values. */
function halvedRows(rows: Rows, width: number): Rows {
  const halved = new Float64Array(width);
  return (y) => {
    const upper = rows(2 * y);
    for (let x = 0; x < width; x++) halved[x] = upper[2 * x]! + upper[2 * x + 1]!;
    const lower = rows(2 * y + 1);
    for (let x = 0; x < width; x++) halved[x] = (halved[x]! + lower[2 * x]! + lower[2 * x + 1]!) / 4;
    return halved;
  };
}

/** Adds every value to the four cells of a tile, [128, 128], around the place that `matrix` gives it, bilinearly. */
export function fold(plane: Plane, matrix: Matrix): Float64Array {
  const { a, b, c, d } = matrix;
  return b === 0 && c === 0 ? foldScaled(plane, 1 / a, 1 / d) : foldTurned(plane, matrix);
}

/** {@link tileSide}: imported names cost a look-up in every pass of a loop where tests run the sources. */
const side = tileSide;
const mask = side - 1;

/** Axes that stay parallel: rows are added to the rows of the tile that they fall between, then columns. */
function foldScaled({ width, height, values }: Plane, perX: number, perY: number): Float64Array {
  const columns = new Float64Array(side * width);
  for (let y = 0; y < height; y++) {
    const place = Math.floor(y * perY);
    const share = y * perY - place;
    const from = y * width;
    const upper = (place & mask) * width;
    const lower = ((place + 1) & mask) * width;
    for (let x = 0; x < width; x++) {
      const value = values[from + x]!;
      const below = value * share;
      columns[upper + x] = columns[upper + x]! + value - below;
      columns[lower + x] = columns[lower + x]! + below;
    }
  }
  const tile = new Float64Array(side * side);
  for (let x = 0; x < width; x++) {
    const place = Math.floor(x * perX);
    const share = x * perX - place;
    const near = place & mask;
    const far = (place + 1) & mask;
    for (let y = 0; y < side; y++) {
      const value = columns[y * width + x]!;
      const right = value * share;
      tile[y * side + near] = tile[y * side + near]! + value - right;
      tile[y * side + far] = tile[y * side + far]! + right;
    }
  }
  return tile;
}

function foldTurned({ width, height, values }: Plane, { a, b, c, d }: Matrix): Float64Array {
  const tile = new Float64Array(side * side);
  const determinant = a * d - b * c;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const tileX = (d * x - b * y) / determinant;
      const tileY = (a * y - c * x) / determinant;
      const left = Math.floor(tileX);
      const top = Math.floor(tileY);
      const below = values[at]! * (tileY - top);
      const above = values[at]! - below;
      const share = tileX - left;
      const upper = (top & mask) * side;
      const lower = ((top + 1) & mask) * side;
      const near = left & mask;
      const far = (left + 1) & mask;
      tile[upper + near] = tile[upper + near]! + above * (1 - share);
      tile[upper + far] = tile[upper + far]! + above * share;
      tile[lower + near] = tile[lower + near]! + below * (1 - share);
      tile[lower + far] = tile[lower + far]! + below * share;
    }
  }
  return tile;
}
