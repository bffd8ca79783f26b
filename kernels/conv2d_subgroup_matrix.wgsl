// conv2d_subgroup_matrix: y[p, o] = bias[o] + sum_{ky, kx, c} x[tap(p, ky, kx), c] * weight[o, ky, kx, c], ACCUMULATE: + y[p, o]
// with: conv2d_call, matrix_product
//
//   x_scale  [in_height * in_width, 2]  f32   of row_scale, for x
//   w_scale  [cols, 2]                  f32   of row_scale, for a weight in f32 or bf16
//
// The same function as conv2d with operands rounded to f16, on matrix units: see matrix_product. The rows of a are
// gathered from the image, one tap after the other. All taps of a pixel are scaled by the smallest of their scales, so
// that its sum has one scale.
// Dispatch: (pixel tiles folded at 65535, column tiles, folds).

enable f16, subgroups, subgroup_size_control, chromium_experimental_subgroup_matrix;

diagnostic(off, chromium.subgroup_matrix_uniformity);

@group(0) @binding(0) var<uniform> params: Conv2dParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x_scale: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> w_scale: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const A_TYPE = 0u; // f32
const OUTSIDE: u32 = 0xffffffffu;

// Where in the (enlarged) input the taps of the tile's pixels begin.
var<workgroup> corners: array<vec2<u32>, TILE_M>;

// The tap, the first channel of a step, and the elements of x where the tap lies for those pixels that the invocation
// reads; OUTSIDE, if it lies outside of the image or the pixel past the end.
struct Cursor { tap: u32, k: u32, sources: array<u32, A_WORDS> }

fn start(p_first: u32, index: u32) -> Cursor {
  for (var i = index; i < TILE_M; i += WORKGROUP) {
    corners[i] = corner_of(params.first_pixel + p_first + i);
  }
  workgroupBarrier();
  var cursor: Cursor;
  find_pixels(&cursor, p_first, index);
  return cursor;
}

// The next tap, if there is one.
fn next_row(cursor: ptr<function, Cursor>, p_first: u32, index: u32) {
  if ((*cursor).tap + 1u < params.kernel_size * params.kernel_size) {
    (*cursor).k = 0u;
    (*cursor).tap += 1u;
    find_pixels(cursor, p_first, index);
  }
}

fn find_pixels(cursor: ptr<function, Cursor>, p_first: u32, index: u32) {
  let reach = reach_of((*cursor).tap);
  for (var i = 0u; i < A_WORDS; i++) {
    let row = place_of(i, index, A_WIDTH).x;
    let source = tap_address(corners[row] + reach);
    (*cursor).sources[i] = select(OUTSIDE, source.x, source.y == 1u && p_first + row < params.pixels);
  }
}

fn is_row(cursor: ptr<function, Cursor>, i: u32, p: u32) -> bool {
  return (*cursor).sources[i] != OUTSIDE;
}

fn a_word(cursor: ptr<function, Cursor>, i: u32, p: u32, k: u32) -> vec4<u32> {
  return x[((*cursor).sources[i] + k) / A_WIDTH];
}

fn weight_word(cursor: ptr<function, Cursor>, n: u32, k: u32, is_up: bool) -> vec4<u32> {
  let tap = n * params.kernel_size * params.kernel_size + (*cursor).tap;
  return weight[(8u * (params.weight_offset + tap * params.groups) + k) / W_WIDTH];
}

// The smallest of the scales of a pixel's taps. If one of their reciprocals is a NaN, so is this scale's.
fn a_scale_of(p: u32) -> vec2<f32> {
  let corner = corner_of(params.first_pixel + p);
  var smallest = exp2(100.0);
  var is_finite = 1.0;
  for (var tap = 0u; tap < params.kernel_size * params.kernel_size; tap++) {
    let source = tap_address(corner + reach_of(tap));
    if (source.y == 1u) {
      let pair = x_scale[2u * (params.x_scale_offset + (source.x - params.x_offset) / params.x_pitch)].xy;
      smallest = min(smallest, pair.x);
      is_finite *= pair.x * pair.y;
    }
  }
  // A power of two is its exponent: 1 / 2^e is 2^-e.
  let reciprocal = bitcast<f32>((254u << 23u) - bitcast<u32>(smallest));
  return vec2<f32>(smallest, reciprocal * is_finite);
}

// There is no up.
fn u_scale_of(n: u32) -> vec2<f32> {
  return vec2<f32>(1.0);
}

@compute @workgroup_size(WORKGROUP) @subgroup_size(SUBGROUP_SIZE)
fn conv2d_subgroup_matrix(own: Invocation, @builtin(subgroup_id) subgroup: u32) {
  let steps = params.kernel_size * params.kernel_size * ((8u * params.groups + STEP - 1u) / STEP);
  multiply_matrices(pixel_tile(own.tile), own.index, subgroup, params.pixels, steps);
}
