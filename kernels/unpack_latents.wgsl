// unpack_latents: y[(2i + p) * 2 * width + 2j + q, c] = x[i * width + j, 4c + 2p + q] * deviation[4c + 2p + q] + mean[4c + 2p + q]
//
//   x         [rows, 4 * channels]  f32   tokens of 2 x 2 pixels
//   mean      [4 * channels]        f32, zero from there up to a multiple of 8
//   variance  [4 * channels]        f32, likewise; deviation = sqrt(variance + eps)
//   y         [4 * rows, channels]  f32   an image of 2 * height x 2 * width pixels; must not alias x
//
// p, q in {0, 1}. The dispatch's rows begin at the start of a row of tokens and y at the pixels that belong to it.
// Dispatch: an invocation per token and four channels of y, workgroups of 64, folded into x and y.

struct Params {
  rows: u32, // tokens
  width: u32, // tokens in a row of them
  channels: u32,
  x_pitch: u32,
  x_offset: u32,
  y_pitch: u32,
  y_offset: u32,
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
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

@compute @workgroup_size(64)
fn unpack_latents(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = (workgroup.y * workgroups.x + workgroup.x) * 64u + lane;
  let quads = params.y_pitch / 4u;
  let quad = index % quads;
  let token = index / quads;
  if (token >= params.rows) {
    return;
  }
  // Four channels of four pixels: a transposition of 4 x 4.
  let turned = transpose(mat4x4<f32>(
    pixels_of(token, 4u * quad),
    pixels_of(token, 4u * quad + 1u),
    pixels_of(token, 4u * quad + 2u),
    pixels_of(token, 4u * quad + 3u)));
  let pixel = token / params.width * 4u * params.width + token % params.width * 2u;
  let above = params.y_offset / 4u + pixel * quads + quad;
  let below = above + 2u * params.width * quads;
  y[above] = turned[0];
  y[above + quads] = turned[1];
  y[below] = turned[2];
  y[below + quads] = turned[3];
}
