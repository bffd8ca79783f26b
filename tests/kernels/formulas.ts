// The operations in f64, written from their formulas and from nothing in src/: what kernels are compared with.
// All matrices are row-major without padding.

type Numbers = ArrayLike<number>;

const at = (values: Numbers, i: number): number => values[i] as number;

/** x[r, c] / √(mean_c(x²) + eps) · weight[c] */
export function rmsNorm(x: Numbers, rows: number, cols: number, weight: Numbers, eps: number): Float64Array {
  const y = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    let squares = 0;
    for (let c = 0; c < cols; c++) squares += at(x, r * cols + c) ** 2;
    const norm = Math.sqrt(squares / cols + eps);
    for (let c = 0; c < cols; c++) y[r * cols + c] = (at(x, r * cols + c) / norm) * at(weight, c);
  }
  return y;
}

/** (1 + scale[c]) · (x[r, c] − mean) / √(variance + eps) + shift[c] */
export function layerNormModulate(
  x: Numbers,
  rows: number,
  cols: number,
  scale: Numbers,
  shift: Numbers,
  eps: number,
): Float64Array {
  const y = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let c = 0; c < cols; c++) sum += at(x, r * cols + c);
    const mean = sum / cols;
    let squares = 0;
    for (let c = 0; c < cols; c++) squares += (at(x, r * cols + c) - mean) ** 2;
    const deviation = Math.sqrt(squares / cols + eps);
    for (let c = 0; c < cols; c++) {
      y[r * cols + c] = ((1 + at(scale, c)) * (at(x, r * cols + c) - mean)) / deviation + at(shift, c);
    }
  }
  return y;
}

export type GroupNormCase = {
  rows: number;
  cols: number;
  groups: number;
  weight: Numbers;
  bias: Numbers;
  eps: number;
  silu: boolean;
};

/** (x − mean_g) / √(variance_g + eps) · weight[c] + bias[c], moments over all rows and a group's columns; then SiLU */
export function groupNorm(x: Numbers, { rows, cols, groups, weight, bias, eps, silu }: GroupNormCase): Float64Array {
  const y = new Float64Array(rows * cols);
  const width = cols / groups;
  for (let g = 0; g < groups; g++) {
    const each = (visit: (i: number, c: number) => void) => {
      for (let r = 0; r < rows; r++) for (let c = g * width; c < (g + 1) * width; c++) visit(r * cols + c, c);
    };
    let sum = 0;
    each((i) => {
      sum += at(x, i);
    });
    const mean = sum / (rows * width);
    let squares = 0;
    each((i) => {
      squares += (at(x, i) - mean) ** 2;
    });
    const deviation = Math.sqrt(squares / (rows * width) + eps);
    each((i, c) => {
      const v = ((at(x, i) - mean) / deviation) * at(weight, c) + at(bias, c);
      y[i] = silu ? v / (1 + Math.exp(-v)) : v;
    });
  }
  return y;
}

export type RopeStyle = "interleaved" | "halves";

/** One head's row turned by its position: pairs (2i, 2i + 1), or (i, i + D/2), by the angles with these cos and sin. */
export function rope(row: Numbers, cos: Numbers, sin: Numbers, style: RopeStyle): Float64Array {
  const y = new Float64Array(row.length);
  const half = row.length / 2;
  for (let i = 0; i < half; i++) {
    const [a, b] = style === "interleaved" ? [2 * i, 2 * i + 1] : [i, i + half];
    y[a] = at(row, a) * at(cos, i) - at(row, b) * at(sin, i);
    y[b] = at(row, b) * at(cos, i) + at(row, a) * at(sin, i);
  }
  return y;
}

export function silu(x: Numbers): Float64Array {
  return Float64Array.from(x, (v) => v / (1 + Math.exp(-v)));
}

/** [h·w, 4L] tokens of an image [2h·2w, ≥ L]: channel c·4 + pi·2 + pj, then (z − mean) / √(variance + eps) */
export function packLatents(
  image: Numbers,
  imageCols: number,
  mean: Numbers,
  variance: Numbers,
  { h, w, channels, eps }: { h: number; w: number; channels: number; eps: number },
): Float64Array {
  const tokens = new Float64Array(h * w * 4 * channels);
  for (let i = 0; i < h; i++)
    for (let j = 0; j < w; j++)
      for (let c = 0; c < channels; c++)
        for (let pi = 0; pi < 2; pi++)
          for (let pj = 0; pj < 2; pj++) {
            const channel = c * 4 + pi * 2 + pj;
            const z = at(image, ((2 * i + pi) * 2 * w + 2 * j + pj) * imageCols + c);
            tokens[(i * w + j) * 4 * channels + channel] =
              (z - at(mean, channel)) / Math.sqrt(at(variance, channel) + eps);
          }
  return tokens;
}
