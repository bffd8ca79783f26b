// conv2d_subgroup: y[p, o] = bias[o] + sum_{ky, kx, c} x[tap(p, ky, kx), c] * weight[o, ky, kx, c]

//   x        [in_height * in_width, groups * 8]               f32   padding channels are zeros
//   weight   [cols, kernel_size * kernel_size * groups * 8]   f32, bf16 or f16, in the order [O, ky, kx, I]
//   bias     [cols]                                           f32
//   y        [pixels, cols]                                   f32   must not alias x; read only if ACCUMULATE
//
// The same function as conv2d, for devices whose subgroup is one SIMD register (CPU drivers): see matmul_subgroup.
// ACCUMULATE adds to y instead of replacing it. One subgroup computes ROWS pixels x (COLS * SUBGROUP_SIZE) channels.
// Dispatch: (pixel tiles folded at 65535, column tiles, folds).

enable subgroups;

// tunables
const WEIGHT_TYPE: u32 = 1u;
const ROWS: u32 = 4u;
const COLS: u32 = 4u;
const SUBGROUP_SIZE: u32 = 8u;

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
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

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

@compute @workgroup_size(SUBGROUP_SIZE)
fn conv2d_subgroup(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let p0 = (tile.z * 65535u + tile.x) * ROWS;
  let n0 = tile.y * COLS * SUBGROUP_SIZE + lane;
  let row_groups = params.kernel_size * params.kernel_size * params.groups;
  var sum: array<array<f32, COLS>, ROWS>;
  var w_row: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) {
    w_row[c] = params.weight_offset + min(n0 + c * SUBGROUP_SIZE, params.cols - 1u) * row_groups;
  }

  // Divisions are slow on a CPU's vectors: one per pixel, none per tap.
  var corner: array<vec2<u32>, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    let pixel = params.first_pixel + min(p0 + r, params.pixels - 1u);
    let row = pixel / params.out_width;
    corner[r] = vec2<u32>(pixel - row * params.out_width, row) * params.stride - vec2<u32>(params.padding);
  }

  var w_tap = 0u;
  for (var ky = 0u; ky < params.kernel_size; ky++) {
    for (var kx = 0u; kx < params.kernel_size; kx++) {
      var source: array<vec2<u32>, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        source[r] = tap_address(corner[r] + vec2<u32>(kx, ky));
        source[r].x += lane & 7u;
      }
      for (var g = 0u; g < params.groups; g++) {
        var w: array<array<vec4<f32>, 2>, COLS>;
        for (var c = 0u; c < COLS; c++) {
          w[c] = load_weight(w_row[c] + w_tap + g);
        }
        for (var r = 0u; r < ROWS; r++) {
          let low = select(0.0, x[source[r].x + 8u * g], source[r].y == 1u);
          var high = low;
          if (SUBGROUP_SIZE < 8u) {
            high = select(0.0, x[source[r].x + 8u * g + 4u], source[r].y == 1u);
          }
          let a0 = subgroupBroadcast(low, 0u);
          let a1 = subgroupBroadcast(low, 1u);
          let a2 = subgroupBroadcast(low, 2u);
          let a3 = subgroupBroadcast(low, 3u);
          let a4 = subgroupBroadcast(high, 4u % SUBGROUP_SIZE);
          let a5 = subgroupBroadcast(high, 5u % SUBGROUP_SIZE);
          let a6 = subgroupBroadcast(high, 6u % SUBGROUP_SIZE);
          let a7 = subgroupBroadcast(high, 7u % SUBGROUP_SIZE);
          for (var c = 0u; c < COLS; c++) {
            var s = sum[r][c];
            s = fma(a0, w[c][0].x, s);
            s = fma(a1, w[c][0].y, s);
            s = fma(a2, w[c][0].z, s);
            s = fma(a3, w[c][0].w, s);
            s = fma(a4, w[c][1].x, s);
            s = fma(a5, w[c][1].y, s);
            s = fma(a6, w[c][1].z, s);
            sum[r][c] = fma(a7, w[c][1].w, s);
          }
        }
      }
      w_tap += params.groups;
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    let p = p0 + r;
    for (var c = 0u; c < COLS; c++) {
      let n = n0 + c * SUBGROUP_SIZE;
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
