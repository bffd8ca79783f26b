// conv2d: y[p, o] = bias[o] + sum_{ky, kx, c} x[tap(p, ky, kx), c] * weight[o, ky, kx, c]

//   x        [in_height * in_width, groups * 8]               f32   padding channels are zeros
//   weight   [cols, kernel_size * kernel_size * groups * 8]   f32, bf16 or f16, in the order [O, ky, kx, I]
//   bias     [cols]                                           f32
//   y        [pixels, cols]                                   f32   must not alias x; read only if ACCUMULATE
//
// An implicit matrix product: k runs over taps and channels, and the rows of a are gathered from the image. ACCUMULATE
// adds to y instead of replacing it. A workgroup of 16 x 16 computes 64 pixels x 64 channels, as matmul does.
// Dispatch: (pixel tiles folded at 65535, column tiles, folds).

// tunables
const WEIGHT_TYPE: u32 = 1u;

override ACCUMULATE: bool = false;

struct Params {
  pixels: u32, // output pixels of this dispatch
  first_pixel: u32, // the first of them in the output image
  out_width: u32,
  cols: u32, // output channels
  groups: u32, // of 8 input channels
  kernel_size: u32,
  stride: u32,
  padding: u32, // left and top; right and bottom are what the output extents leave
  upsample_shift: u32, // 1: the input is read as its nearest-neighbour enlargement by two, 0: as it is
  in_height: u32,
  in_width: u32,
  x_first_row: u32, // the first image row that is bound
  x_offset: u32, // elements
  x_pitch: u32,
  weight_offset: u32, // groups
  bias_offset: u32,
  y_offset: u32, // of the first pixel
  y_pitch: u32,
  y_cols: u32, // channels to write; those from cols on are zeros
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const TILE: u32 = 64u;
const STEP: u32 = 16u; // elements of k in workgroup memory

// Four elements of k of one row (column), [k / 4][row]: neighbouring invocations read neighbouring vectors.
var<workgroup> a_tile: array<vec4<f32>, TILE * STEP / 4u>;
var<workgroup> w_tile: array<vec4<f32>, TILE * STEP / 4u>;

// Eight elements from 16 bytes (bf16, f16); f32 takes 16 bytes more.
fn unpack8(word: vec4<u32>, more: vec4<u32>, kind: u32) -> array<vec4<f32>, 2> {
  if (kind == 0u) {
    return array<vec4<f32>, 2>(bitcast<vec4<f32>>(word), bitcast<vec4<f32>>(more));
  }
  if (kind == 1u) {
    let low = bitcast<vec4<f32>>(word << vec4<u32>(16u));
    let high = bitcast<vec4<f32>>(word & vec4<u32>(0xffff0000u));
    return array<vec4<f32>, 2>(vec4<f32>(low.x, high.x, low.y, high.y), vec4<f32>(low.z, high.z, low.w, high.w));
  }
  return array<vec4<f32>, 2>(
    vec4<f32>(unpack2x16float(word.x), unpack2x16float(word.y)),
    vec4<f32>(unpack2x16float(word.z), unpack2x16float(word.w)));
}

fn load_weight(group: u32) -> array<vec4<f32>, 2> {
  if (WEIGHT_TYPE == 0u) {
    return unpack8(weight[2u * group], weight[2u * group + 1u], 0u);
  }
  return unpack8(weight[group], vec4<u32>(), WEIGHT_TYPE);
}

// Where a tap lies in x, in elements, and whether it lies inside of the image. `source` is its place in the (enlarged)
// input; it is unsigned on purpose: what lies above or to the left wraps around and is outside, too.
fn tap_address(source: vec2<u32>) -> vec2<u32> {
  let at = source >> vec2<u32>(params.upsample_shift);
  let inside = at.x < params.in_width && at.y < params.in_height;
  let address = params.x_offset + ((at.y - params.x_first_row) * params.in_width + at.x) * params.x_pitch;
  return select(vec2<u32>(params.x_offset, 0u), vec2<u32>(address, 1u), inside);
}

@compute @workgroup_size(16, 16)
fn conv2d(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let p_first = (tile.z * 65535u + tile.x) * TILE;
  let n_first = tile.y * TILE;
  let tx = index % 16u; // columns tx, tx + 16, … of the tile
  let ty = index / 16u; // rows ty, ty + 16, …
  let row_groups = params.kernel_size * params.kernel_size * params.groups;

  // Invocations 0..127 bring eight channels of a pixel's tap each, 128..255 of a row of the weight.
  let line = index % 128u / 2u;
  let part = index % 2u;
  let brings_a = index < 128u;
  let p_load = p_first + line;
  let n_load = n_first + line;
  let pixel = params.first_pixel + p_load;
  let row = pixel / params.out_width;
  let corner = vec2<u32>(pixel - row * params.out_width, row) * params.stride - vec2<u32>(params.padding);

  var sum: array<array<f32, 4>, 4>;
  for (var k = 0u; k < row_groups; k += 2u) {
    var loaded = array<vec4<f32>, 2>(vec4<f32>(), vec4<f32>());
    let group = k + part;
    if (group < row_groups) {
      if (brings_a && p_load < params.pixels) {
        let tap = group / params.groups;
        let ky = tap / params.kernel_size;
        let source = tap_address(corner + vec2<u32>(tap - ky * params.kernel_size, ky));
        if (source.y == 1u) {
          let at = source.x / 4u + 2u * (group - tap * params.groups);
          loaded = array<vec4<f32>, 2>(x[at], x[at + 1u]);
        }
      }
      if (!brings_a && n_load < params.cols) {
        loaded = load_weight(params.weight_offset + n_load * row_groups + group);
      }
    }
    workgroupBarrier();
    if (brings_a) {
      a_tile[2u * part * TILE + line] = loaded[0];
      a_tile[(2u * part + 1u) * TILE + line] = loaded[1];
    } else {
      w_tile[2u * part * TILE + line] = loaded[0];
      w_tile[(2u * part + 1u) * TILE + line] = loaded[1];
    }
    workgroupBarrier();
    for (var i = 0u; i < STEP / 4u; i++) {
      var cols: array<vec4<f32>, 4>;
      for (var c = 0u; c < 4u; c++) {
        cols[c] = w_tile[i * TILE + tx + 16u * c];
      }
      for (var r = 0u; r < 4u; r++) {
        let row = a_tile[i * TILE + ty + 16u * r];
        for (var c = 0u; c < 4u; c++) {
          sum[r][c] += dot(row, cols[c]);
        }
      }
    }
  }

  for (var r = 0u; r < 4u; r++) {
    let p = p_first + ty + 16u * r;
    for (var c = 0u; c < 4u; c++) {
      let n = n_first + tx + 16u * c;
      if (p < params.pixels && n < params.y_cols) {
        let at = params.y_offset + p * params.y_pitch + n;
        var value = 0.0;
        if (n < params.cols) {
          value = sum[r][c] + bias[params.bias_offset + n];
          if (ACCUMULATE) {
            value += y[at];
          }
        }
        y[at] = value;
      }
    }
  }
}
