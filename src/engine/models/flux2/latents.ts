// Where a latent value lies: the two orders that latents take on the host, and their grid.
// Pure layout, no arithmetic. Trace order [1, C, h, w] exists only in files; the transformer works on tokens [N, C],
// N = h·w, rows first. Noise is drawn with all C channels at once; only what the VAE encodes is patchified, on the
// device: channel c·4 + pi·2 + pj of token (i, j) is channel c of VAE latent pixel (2i + pi, 2j + pj).

import { assert } from "../../../errors.js";

/** Latent rows and columns. */
export type LatentGrid = { h: number; w: number };

/**
 * The latent grid of a picture.
 * @param multiple pixels a latent position covers on each axis: 2 · the VAE's scale factor, 16 for klein
 */
export function latentGrid(width: number, height: number, multiple: number): LatentGrid {
  return { h: Math.floor(height / multiple), w: Math.floor(width / multiple) };
}

/** [C, h, w] (or [1, C, h, w]) → tokens [h·w, C]. */
export function latentsToTokens(latents: Float32Array, channels: number): Float32Array {
  return transpose(latents, channels, latents.length / channels);
}

/** Tokens [h·w, C] → [C, h, w]; also the way from channels-last [h, w, C] activations to a trace's [C, h, w]. */
export function tokensToLatents(tokens: Float32Array, channels: number): Float32Array {
  return transpose(tokens, tokens.length / channels, channels);
}

/** [rows, cols] → [cols, rows]. */
function transpose(values: Float32Array, rows: number, cols: number): Float32Array {
  assert(
    Number.isInteger(rows) && Number.isInteger(cols) && rows * cols === values.length,
    `got ${values.length} values for a ${rows} by ${cols} layout, expected their product`,
  );
  const transposed = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) transposed[col * rows + row] = values[row * cols + col]!;
  }
  return transposed;
}
