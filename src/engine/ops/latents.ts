// Between the VAE's latent image and the transformer's tokens: patches of 2 × 2 pixels and the normalisation by the
// VAE's stored batch statistics. Channel c, pixel (pi, pj) of a patch is channel c·4 + pi·2 + pj of its token; the
// statistics belong to the patchified channels, so packing normalises afterwards and unpacking undoes it before.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";
import type { Vector } from "../weights/upload.js";
import { bands, foldWorkgroups, rowsPerBinding } from "./cut.js";
import { bindVector } from "./parameters.js";

export type LatentsOptions = {
  label?: string;
  /** Rows and columns of tokens; the latent image has twice as many pixels each way. */
  h: number;
  w: number;
  /** Channels of the latent image. */
  channels: number;
  /** The VAE config's `batch_norm_eps`. */
  eps: number;
};

/**
 * tokens[i·w + j, c·4 + pi·2 + pj] = (moments[(2i + pi)·2w + 2j + pj, c] − mean)/√(variance + eps), c < L.
 * moments: [4·h·w, 2L] f32, means before log-variances, which are not read; mean, variance: [4L]; tokens: [h·w, 4L] f32.
 */
export function packLatents(
  recorder: Recorder,
  moments: Tensor,
  mean: Vector,
  variance: Vector,
  options: LatentsOptions,
): Tensor {
  const { label = "pack_latents", h, w, channels } = options;
  assert(
    moments.rows === 4 * h * w && moments.cols >= channels,
    `${label}: [${moments.rows}, ${moments.cols}] moments, expected [${4 * h * w}, ≥ ${channels}]`,
  );
  const tokens = recorder.scratch(label, h * w, 4 * channels);
  rearrange(recorder, "pack_latents", { tokens, image: moments, mean, variance, options: { ...options, label } });
  return tokens;
}

/**
 * image[(2i + pi)·2w + 2j + pj, c] = tokens[i·w + j, c·4 + pi·2 + pj]·√(variance + eps) + mean, the inverse of
 * {@link packLatents}. tokens: [h·w, 4L] f32; mean, variance: [4L]; image: [4·h·w, L] f32.
 */
export function unpackLatents(
  recorder: Recorder,
  tokens: Tensor,
  mean: Vector,
  variance: Vector,
  options: LatentsOptions,
): Tensor {
  const { label = "unpack_latents", h, w, channels } = options;
  assert(
    tokens.rows === h * w && tokens.cols === 4 * channels,
    `${label}: [${tokens.rows}, ${tokens.cols}] tokens, expected [${h * w}, ${4 * channels}]`,
  );
  const image = recorder.scratch(label, 4 * h * w, channels);
  rearrange(recorder, "unpack_latents", { tokens, image, mean, variance, options: { ...options, label } });
  return image;
}

type Rearrangement = {
  tokens: Tensor;
  image: Tensor;
  mean: Vector;
  variance: Vector;
  options: LatentsOptions & { label: string };
};

/** Both ways, in bands of whole rows of tokens: their pixels are contiguous. */
function rearrange(recorder: Recorder, stem: "pack_latents" | "unpack_latents", given: Rearrangement): void {
  const { facts } = recorder;
  const { tokens, image, mean, variance, options } = given;
  const { label, w, channels, eps } = options;
  assert(tokens.dtype === "f32" && image.dtype === "f32", `${label}: ${tokens.dtype} and ${image.dtype}, expected f32`);
  assert(
    mean.length === 4 * channels && variance.length === 4 * channels,
    `${label}: ${mean.length} means and ${variance.length} variances for ${4 * channels} channels`,
  );
  const [x, y] = stem === "pack_latents" ? [image, tokens] : [tokens, image];
  const step = Math.min(rowsPerBinding(facts, tokens), rowsPerBinding(facts, image) / 4);
  for (const { begin, end } of bands(tokens.rows, step, w)) {
    const band = (tensor: Tensor) =>
      tensor === tokens ? bindRows(tensor, begin, end) : bindRows(tensor, 4 * begin, 4 * end);
    const input = band(x);
    const output = band(y);
    const rows = end - begin;
    recorder.dispatch({
      kernel: kernel(stem),
      label,
      bindings: {
        x: input.binding,
        mean: bindVector(mean),
        variance: bindVector(variance),
        y: output.binding,
      },
      params: {
        rows,
        width: w,
        channels,
        x_pitch: x.pitch,
        x_offset: input.offset,
        y_pitch: y.pitch,
        y_offset: output.offset,
        eps,
      },
      workgroups: foldWorkgroups((rows * y.pitch) / 4 / 64),
      flops: rows * 4 * channels * 3,
      bytes: rows * (rowBytes(tokens) + 16 * channels),
    });
  }
}
