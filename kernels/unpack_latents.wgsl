// unpack_latents: y[(2i + p) * 2 * width + 2j + q, c] = x[i * width + j, 4c + 2p + q] * deviation[4c + 2p + q] + mean[4c + 2p + q]
// with: latent_tokens
//
//   x         [rows, 4 * channels]  f32   tokens of 2 x 2 pixels
//   mean      [4 * channels]        f32, zero from there up to a multiple of 8
//   variance  [4 * channels]        f32, likewise; deviation = sqrt(variance + eps)
//   y         [4 * rows, channels]  f32   an image of 2 * height x 2 * width pixels; must not alias x
//
// p, q in {0, 1}. The dispatch's rows begin at the start of a row of tokens and y at the pixels that belong to it.
// Dispatch: an invocation per token and four channels of y, workgroups of 64, folded into x and y.

@group(0) @binding(0) var<uniform> params: LatentParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> variance: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

// The four pixels of channel c, zero past the last channel.
fn pixels_of(token: u32, c: u32) -> vec4<f32> {
  if (c >= params.channels) {
    return vec4<f32>(0.0);
  }
  return x[(params.x_offset + token * params.x_pitch) / 4u + c] * sqrt(variance[c] + params.eps) + mean[c];
}

@compute @workgroup_size(64) fn unpack_latents(own: Invocation) {
  let token = token_of(own);
  let quad = vector_of(own);
  if (token >= params.rows) {
    return;
  }
  // Four channels of four pixels are a matrix; a pixel's channels are neighbours in y.
  let turned = transpose(mat4x4<f32>(
    pixels_of(token, 4u * quad),
    pixels_of(token, 4u * quad + 1u),
    pixels_of(token, 4u * quad + 2u),
    pixels_of(token, 4u * quad + 3u)));
  let quads = vectors_of_row();
  let above = params.y_offset / 4u + pixel_of(token) * quads + quad;
  let below = above + 2u * params.width * quads;
  y[above] = turned[0];
  y[above + quads] = turned[1];
  y[below] = turned[2];
  y[below + quads] = turned[3];
}
