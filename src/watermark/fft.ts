// Fourier transforms of two dimensions, made of the one-dimensional one that the package fourier-transform has.
// A transform is rows, transpose, rows: what is in between stands transposed, and who needs only a few of the rows, or
// knows the others to be zero, says which. Nothing is normalised. Knows no picture.

import { cfft, fft } from "fourier-transform";

/** Complex numbers, [height, width] row-major; sides are powers of two. */
export type Grid = {
  width: number;
  height: number;
  re: Float64Array;
  im: Float64Array;
  /** Views of the rows; making them costs as much as a short transform. */
  rows: readonly { re: Float64Array; im: Float64Array }[];
};

/** −1 is the transform (e^(−i…)), 1 its inverse (e^(+i…)) times the number of points. */
export type Sign = 1 | -1;

/** A grid of zeros. */
export function makeGrid(width: number, height: number): Grid {
  const re = new Float64Array(width * height);
  const im = new Float64Array(width * height);
  const rows = Array.from({ length: height }, (_, y) => ({
    re: re.subarray(y * width, (y + 1) * width),
    im: im.subarray(y * width, (y + 1) * width),
  }));
  return { width, height, re, im, rows };
}

/** Transforms the rows first … end − 1 in place. */
export function transformRows(grid: Grid, sign: Sign, first = 0, end = grid.height): void {
  for (let y = first; y < end; y++) {
    const { re, im } = grid.rows[y]!;
    // Exchanging the parts conjugates before and after: that is the inverse.
    if (sign === -1) cfft(re, im);
    else cfft(im, re);
  }
}

const block = 16;

/** Writes the transpose of one grid into another, in blocks that stay in the cache. */
export function transpose(from: Grid, to: Grid): void {
  const { width, height } = from;
  for (let top = 0; top < height; top += block) {
    const bottom = Math.min(height, top + block);
    for (let left = 0; left < width; left += block) {
      const right = Math.min(width, left + block);
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) {
          to.re[x * height + y] = from.re[y * width + x]!;
          to.im[x * height + y] = from.im[y * width + x]!;
        }
      }
    }
  }
}

/** Transforms a whole grid and leaves the result, transposed, in `transposed`; what `grid` holds then is of no use. */
export function transform(grid: Grid, transposed: Grid, sign: Sign): void {
  transformRows(grid, sign);
  transpose(grid, transposed);
  transformRows(transposed, sign);
}

/**
 * The transform of real numbers, of which only the first `count` rows of `transposed` are made: at most half of them and one
 * more, which are all that is independent.
 */
export function transformReal(values: Float64Array, transposed: Grid, count: number): void {
  const { width: height, height: width } = transposed;
  for (let y = 0; y < height; y++) {
    const [re, im] = fft(values.subarray(y * width, (y + 1) * width));
    for (let u = 0; u < count; u++) {
      transposed.re[u * height + y] = re[u]!;
      transposed.im[u * height + y] = im[u]!;
    }
  }
  transformRows(transposed, -1, 0, count);
}
