// Which scales, turns and stretches of a watermarked picture are likely, read from the picture alone: a periodic tile makes
// the residual resemble itself, moved by whole tiles. Saves comparing tens of thousands of places with the key, each of which
// would raise the chance of finding what is not there. Knows no key.

import { makeGrid, transform } from "./fft.js";
import { tileSide } from "./pattern.js";
import type { Matrix, Plane } from "./residual.js";

/** How much a residual resembles itself, [height, width], cyclic; `sides` are those of the part that was compared. */
export type Correlation = {
  width: number;
  height: number;
  values: Float64Array;
  sides: [width: number, height: number];
};

/** {@link tileSide}: imported names cost a look-up in every pass of a loop where tests run the sources. */
const side = tileSide;
const mostSide = 1024;
/** The mean over 15 × 15 around each value is taken off: what is left is sharp, as the watermark is and most pictures are not. */
const meanSpan = 15;
const mostTiles = 8;
/** Moved further, too little of a picture lies over itself. */
const mostOfSide = 0.9;
const leastDistance = 0.005;

/** The autocorrelation of the central 1024 × 1024 values, in the next powers of two. */
export function correlationOf(plane: Plane): Correlation {
  const sides: [number, number] = [Math.min(mostSide, plane.width), Math.min(mostSide, plane.height)];
  const [left, top] = [(plane.width - sides[0]) >> 1, (plane.height - sides[1]) >> 1];
  const [width, height] = sides.map((side) => 2 ** Math.ceil(Math.log2(side))) as [number, number];
  // The transforms that the package has begin at two.
  const grid = makeGrid(Math.max(2, width), Math.max(2, height));
  for (let y = 0; y < sides[1]; y++) {
    const from = (top + y) * plane.width + left;
    grid.rows[y]!.re.set(plane.values.subarray(from, from + sides[0]));
  }
  const spectrum = makeGrid(grid.height, grid.width);
  transform(grid, spectrum, -1);
  const means = [spectrum.width, spectrum.height].map(meanResponse) as [Float64Array, Float64Array];
  for (const [u, { re, im }] of spectrum.rows.entries()) {
    for (let v = 0; v < re.length; v++) {
      re[v] = (re[v]! ** 2 + im[v]! ** 2) * (1 - means[1][u]! * means[0][v]!);
      im[v] = 0;
    }
  }
  transform(spectrum, grid, 1);
  return { width: grid.width, height: grid.height, values: grid.re, sides };
}

/** What a cyclic mean over {@link meanSpan} values makes of each frequency. */
function meanResponse(length: number): Float64Array {
  return Float64Array.from({ length }, (_, frequency) => {
    let sum = 1;
    for (let k = 1; k <= meanSpan >> 1; k++) sum += 2 * Math.cos((2 * Math.PI * frequency * k) / length);
    return sum / meanSpan;
  });
}

/** How much a residual resembles itself where `matrix` puts the corners of the tiles; −Infinity where none is inside. */
function likelihood({ width, height, values, sides }: Correlation, { a, b, c, d }: Matrix): number {
  let sum = 0;
  let weight = 0;
  for (let j = 0; j <= mostTiles; j++) {
    for (let i = j === 0 ? 1 : -mostTiles; i <= mostTiles; i++) {
      const x = side * (a * i + b * j);
      const y = side * (c * i + d * j);
      if (Math.abs(x) > mostOfSide * sides[0] || Math.abs(y) > mostOfSide * sides[1]) continue;
      const overlap = (sides[0] - Math.abs(x)) * (sides[1] - Math.abs(y));
      const [left, top] = [Math.floor(x), Math.floor(y)];
      const [near, far] = [left & (width - 1), (left + 1) & (width - 1)];
      const [upper, lower] = [(top & (height - 1)) * width, ((top + 1) & (height - 1)) * width];
      const above = values[upper + near]! + (values[upper + far]! - values[upper + near]!) * (x - left);
      const below = values[lower + near]! + (values[lower + far]! - values[lower + near]!) * (x - left);
      sum += (above + (below - above) * (y - top)) * Math.sqrt(overlap);
      weight += overlap;
    }
  }
  return weight > 0 ? sum / Math.sqrt(weight) : -Infinity;
}

/** The likeliest of many matrices, the best first; of two that are closer than 0.5 % the better one. */
export function likeliest(correlation: Correlation, matrices: Iterable<Matrix>, count: number): Matrix[] {
  const judged: { matrix: Matrix; value: number }[] = [];
  for (const matrix of matrices) {
    const value = likelihood(correlation, matrix);
    if (value !== -Infinity) judged.push({ matrix, value });
  }
  judged.sort((one, other) => other.value - one.value);
  const kept: Matrix[] = [];
  for (const { matrix } of judged) {
    if (kept.length === count) break;
    if (kept.every((other) => distance(matrix, other) >= leastDistance)) kept.push(matrix);
  }
  return kept;
}

/** The largest difference of two entries, as a share of the scale. */
function distance(one: Matrix, other: Matrix): number {
  const most = Math.max(...(["a", "b", "c", "d"] as const).map((name) => Math.abs(one[name] - other[name])));
  return most / Math.sqrt(Math.abs(other.a * other.d - other.b * other.c));
}

/** Both axes scaled, then turned by an angle in radians. */
function matrixOf(scaleX: number, scaleY: number, angle: number): Matrix {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return { a: scaleX * cos, b: -scaleY * sin, c: scaleX * sin, d: scaleY * cos };
}

/** Scales from the first to the last in equal proportions. */
export function* scales(first: number, last: number, step: number): Iterable<Matrix> {
  for (let scale = first; scale <= last; scale *= 1 + step) yield matrixOf(scale, scale, 0);
}

/** Scales of 0.4 … 2.5, either turned by up to 6° or with one side longer by up to 27 % than the other. */
export function* turnsAndStretches(): Iterable<Matrix> {
  for (let scale = 0.4; scale <= 2.5; scale *= 1.004) {
    for (let step = -40; step <= 40; step++) yield matrixOf(scale, scale, (step * 0.15 * Math.PI) / 180);
    for (let step = -30; step <= 30; step++) {
      const ratio = Math.exp(step * 0.004);
      if (step !== 0) yield matrixOf(scale * ratio, scale / ratio, 0);
    }
  }
}

/** The likeliest near a matrix: three rounds among 27 neighbours, each round half as far away. */
export function improved(correlation: Correlation, { a, b, c, d }: Matrix): Matrix {
  let [scaleX, scaleY, angle] = [Math.hypot(a, c), Math.hypot(b, d), Math.atan2(c, a)];
  for (let reach = 1; reach > 0.2; reach /= 2) {
    const neighbours = [-reach, 0, reach].flatMap((x) =>
      [-reach, 0, reach].flatMap((y) =>
        [-reach, 0, reach].map((turn) => {
          const at = [scaleX * (1 + 0.002 * x), scaleY * (1 + 0.002 * y), angle + 0.0015 * turn] as const;
          return { at, value: likelihood(correlation, matrixOf(...at)) };
        }),
      ),
    );
    [scaleX, scaleY, angle] = neighbours.reduce((best, other) => (other.value > best.value ? other : best)).at;
  }
  return matrixOf(scaleX, scaleY, angle);
}
