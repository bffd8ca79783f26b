// conv2d_subgroup_panel: y[p, o] = bias[o] + sum_{ky, kx, c} x[tap(p, ky, kx), c] * weight[o, ky, kx, c]
// with: conv2d_call, panel_product
//
// The same function as conv2d, for devices whose subgroup is one SIMD register (CPU drivers): see panel_product. The
// terms of all taps are one long sum. A lane loads eight of them; they belong to one tap, because channels are padded
// to a multiple of 8. A subgroup computes ROWS pixels x (COLS * SUBGROUP_SIZE) channels. Dispatch: (pixel tiles folded
// at 65535, column tiles, folds).

enable subgroups;

@group(0) @binding(0) var<uniform> params: Conv2dParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// The pixel that comes next, and the lane's eight terms: the place of their tap, seen from the pixel, and its channels.
struct Cursor { pixel: vec2<u32>, reach: vec2<u32>, channels: u32, is_term: bool }

// Divisions are slow on a CPU's vectors, so all of them are here, and none is in next_eight.
fn first_row(p: u32, group: u32) -> Cursor {
  let place = place_of_group(group);
  let reach = place.reach - vec2<u32>(params.padding);
  return Cursor(place_of_pixel(params.first_pixel + p), reach, place.channels, place.reach.y < params.kernel_size);
}

// Zeros outside of the image.
fn next_eight(cursor: ptr<function, Cursor>) -> Eight {
  let pixel = (*cursor).pixel;
  let tap = tap_address(pixel * params.stride + (*cursor).reach);
  let inside = (*cursor).is_term && tap.y == 1u;
  let at = tap.x / 4u + 2u * (*cursor).channels;
  (*cursor).pixel = select(pixel + vec2<u32>(1u, 0u), vec2<u32>(0u, pixel.y + 1u), pixel.x + 1u == params.out_width);
  return eight_floats(select(vec4<f32>(), x[at], inside), select(vec4<f32>(), x[at + 1u], inside));
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn conv2d_subgroup_panel(@builtin(workgroup_id) tile: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  multiply_panels(pixel_tile(tile), lane, params.pixels, groups_of_row());
}
