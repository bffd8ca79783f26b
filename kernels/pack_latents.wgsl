// pack_latents: y[i * width + j, 4c + 2p + q] = (x[(2i + p) * 2 * width + 2j + q, c] - mean[4c + 2p + q]) / deviation[4c + 2p + q]
// with: latent_tokens
//
//   x         [4 * rows, >= channels]  f32   an image of 2 * height x 2 * width pixels
//   mean      [4 * channels]           f32, zero from there up to a multiple of 8
//   variance  [4 * channels]           f32, likewise; deviation = sqrt(variance + eps)
//   y         [rows, 4 * channels]     f32   tokens of 2 x 2 pixels; must not alias x
//
// p, q in {0, 1}. The dispatch's rows begin at the start of a row of tokens and x at the pixels that belong to it.
// Dispatch: an invocation per token and channel of x (one more for the padding), workgroups of 64, folded into x and y.

@group(0) @binding(0) var<uniform> params: LatentParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> variance: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64) fn pack_latents(own: Invocation) {
  let token = token_of(own);
  let c = vector_of(own);
  if (token >= params.rows) {
    return;
  }
  let y_at = params.y_offset / 4u + token * vectors_of_row() + c;
  if (c >= params.channels) {
    y[y_at] = vec4<f32>(0.0);
    return;
  }
  let above = params.x_offset + pixel_of(token) * params.x_pitch + c;
  let below = above + 2u * params.width * params.x_pitch;
  let pixels = vec4<f32>(x[above], x[above + params.x_pitch], x[below], x[below + params.x_pitch]);
  y[y_at] = (pixels - mean[c]) / sqrt(variance[c] + params.eps);
}
