// conv2d_subgroup_panel: y[p, o] = bias[o] + sum_{ky, kx, c} x[tap(p, ky, kx), c] * weight[o, ky, kx, c]

//   x        [in_height * in_width, groups * 8]               f32   padding channels are zeros
//   weight   [cols, kernel_size * kernel_size * groups * 8]   f32, bf16 or f16, in the order [O, ky, kx, I]
//   bias     [cols]                                           f32
//   y        [pixels, cols]                                   f32   must not alias x; read only if ACCUMULATE
//
// The same function as conv2d, for devices whose subgroup is one SIMD register (CPU drivers): see matmul_subgroup_panel. The
// terms of all taps are one long sum; a lane loads eight of them, which belong to one tap, because channels are padded
// to a multiple of 8. ACCUMULATE adds to y instead of replacing it. One subgroup computes ROWS pixels x
// (COLS * SUBGROUP_SIZE) channels. Dispatch: (pixel tiles folded at 65535, column tiles, folds).

enable subgroups;

// tunables
const WEIGHT_TYPE: u32 = 1u;
const ROWS: u32 = 128u;
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
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
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

// Terms of a sum in a panel: eight a lane.
const DEPTH: u32 = 8u * SUBGROUP_SIZE;

alias Panel = array<array<f32, COLS>, DEPTH>;

// Adds the terms of eight k, from `k` on.
fn add_eight(s: ptr<function, array<f32, COLS>>, panel: ptr<function, Panel>, k: u32, v: array<f32, 8>) {
  for (var c = 0u; c < COLS; c++) {
    var t = (*s)[c];
    t = fma(v[0], (*panel)[k][c], t);
    t = fma(v[1], (*panel)[k + 1u][c], t);
    t = fma(v[2], (*panel)[k + 2u][c], t);
    t = fma(v[3], (*panel)[k + 3u][c], t);
    t = fma(v[4], (*panel)[k + 4u][c], t);
    t = fma(v[5], (*panel)[k + 5u][c], t);
    t = fma(v[6], (*panel)[k + 6u][c], t);
    (*s)[c] = fma(v[7], (*panel)[k + 7u][c], t);
  }
}

// Adds the terms of a whole panel; `v` are this lane's eight elements of the pixel. A lane to broadcast from has to be
// written as a constant.
fn add_panel(s: ptr<function, array<f32, COLS>>, panel: ptr<function, Panel>, v: array<f32, 8>) {
  add_eight(s, panel, 0u, array<f32, 8>(
    subgroupBroadcast(v[0], 0u), subgroupBroadcast(v[1], 0u), subgroupBroadcast(v[2], 0u), subgroupBroadcast(v[3], 0u),
    subgroupBroadcast(v[4], 0u), subgroupBroadcast(v[5], 0u), subgroupBroadcast(v[6], 0u), subgroupBroadcast(v[7], 0u)));
  add_eight(s, panel, 8u, array<f32, 8>(
    subgroupBroadcast(v[0], 1u), subgroupBroadcast(v[1], 1u), subgroupBroadcast(v[2], 1u), subgroupBroadcast(v[3], 1u),
    subgroupBroadcast(v[4], 1u), subgroupBroadcast(v[5], 1u), subgroupBroadcast(v[6], 1u), subgroupBroadcast(v[7], 1u)));
  add_eight(s, panel, 16u, array<f32, 8>(
    subgroupBroadcast(v[0], 2u), subgroupBroadcast(v[1], 2u), subgroupBroadcast(v[2], 2u), subgroupBroadcast(v[3], 2u),
    subgroupBroadcast(v[4], 2u), subgroupBroadcast(v[5], 2u), subgroupBroadcast(v[6], 2u), subgroupBroadcast(v[7], 2u)));
  add_eight(s, panel, 24u, array<f32, 8>(
    subgroupBroadcast(v[0], 3u), subgroupBroadcast(v[1], 3u), subgroupBroadcast(v[2], 3u), subgroupBroadcast(v[3], 3u),
    subgroupBroadcast(v[4], 3u), subgroupBroadcast(v[5], 3u), subgroupBroadcast(v[6], 3u), subgroupBroadcast(v[7], 3u)));
  if (SUBGROUP_SIZE > 4u) {
    add_eight(s, panel, 32u, array<f32, 8>(
      subgroupBroadcast(v[0], 4u), subgroupBroadcast(v[1], 4u), subgroupBroadcast(v[2], 4u), subgroupBroadcast(v[3], 4u),
      subgroupBroadcast(v[4], 4u), subgroupBroadcast(v[5], 4u), subgroupBroadcast(v[6], 4u), subgroupBroadcast(v[7], 4u)));
    add_eight(s, panel, 40u, array<f32, 8>(
      subgroupBroadcast(v[0], 5u), subgroupBroadcast(v[1], 5u), subgroupBroadcast(v[2], 5u), subgroupBroadcast(v[3], 5u),
      subgroupBroadcast(v[4], 5u), subgroupBroadcast(v[5], 5u), subgroupBroadcast(v[6], 5u), subgroupBroadcast(v[7], 5u)));
    add_eight(s, panel, 48u, array<f32, 8>(
      subgroupBroadcast(v[0], 6u), subgroupBroadcast(v[1], 6u), subgroupBroadcast(v[2], 6u), subgroupBroadcast(v[3], 6u),
      subgroupBroadcast(v[4], 6u), subgroupBroadcast(v[5], 6u), subgroupBroadcast(v[6], 6u), subgroupBroadcast(v[7], 6u)));
    add_eight(s, panel, 56u, array<f32, 8>(
      subgroupBroadcast(v[0], 7u), subgroupBroadcast(v[1], 7u), subgroupBroadcast(v[2], 7u), subgroupBroadcast(v[3], 7u),
      subgroupBroadcast(v[4], 7u), subgroupBroadcast(v[5], 7u), subgroupBroadcast(v[6], 7u), subgroupBroadcast(v[7], 7u)));
  }
  if (SUBGROUP_SIZE > 8u) {
    add_eight(s, panel, 64u, array<f32, 8>(
      subgroupBroadcast(v[0], 8u), subgroupBroadcast(v[1], 8u), subgroupBroadcast(v[2], 8u), subgroupBroadcast(v[3], 8u),
      subgroupBroadcast(v[4], 8u), subgroupBroadcast(v[5], 8u), subgroupBroadcast(v[6], 8u), subgroupBroadcast(v[7], 8u)));
    add_eight(s, panel, 72u, array<f32, 8>(
      subgroupBroadcast(v[0], 9u), subgroupBroadcast(v[1], 9u), subgroupBroadcast(v[2], 9u), subgroupBroadcast(v[3], 9u),
      subgroupBroadcast(v[4], 9u), subgroupBroadcast(v[5], 9u), subgroupBroadcast(v[6], 9u), subgroupBroadcast(v[7], 9u)));
    add_eight(s, panel, 80u, array<f32, 8>(
      subgroupBroadcast(v[0], 10u), subgroupBroadcast(v[1], 10u), subgroupBroadcast(v[2], 10u), subgroupBroadcast(v[3], 10u),
      subgroupBroadcast(v[4], 10u), subgroupBroadcast(v[5], 10u), subgroupBroadcast(v[6], 10u), subgroupBroadcast(v[7], 10u)));
    add_eight(s, panel, 88u, array<f32, 8>(
      subgroupBroadcast(v[0], 11u), subgroupBroadcast(v[1], 11u), subgroupBroadcast(v[2], 11u), subgroupBroadcast(v[3], 11u),
      subgroupBroadcast(v[4], 11u), subgroupBroadcast(v[5], 11u), subgroupBroadcast(v[6], 11u), subgroupBroadcast(v[7], 11u)));
    add_eight(s, panel, 96u, array<f32, 8>(
      subgroupBroadcast(v[0], 12u), subgroupBroadcast(v[1], 12u), subgroupBroadcast(v[2], 12u), subgroupBroadcast(v[3], 12u),
      subgroupBroadcast(v[4], 12u), subgroupBroadcast(v[5], 12u), subgroupBroadcast(v[6], 12u), subgroupBroadcast(v[7], 12u)));
    add_eight(s, panel, 104u, array<f32, 8>(
      subgroupBroadcast(v[0], 13u), subgroupBroadcast(v[1], 13u), subgroupBroadcast(v[2], 13u), subgroupBroadcast(v[3], 13u),
      subgroupBroadcast(v[4], 13u), subgroupBroadcast(v[5], 13u), subgroupBroadcast(v[6], 13u), subgroupBroadcast(v[7], 13u)));
    add_eight(s, panel, 112u, array<f32, 8>(
      subgroupBroadcast(v[0], 14u), subgroupBroadcast(v[1], 14u), subgroupBroadcast(v[2], 14u), subgroupBroadcast(v[3], 14u),
      subgroupBroadcast(v[4], 14u), subgroupBroadcast(v[5], 14u), subgroupBroadcast(v[6], 14u), subgroupBroadcast(v[7], 14u)));
    add_eight(s, panel, 120u, array<f32, 8>(
      subgroupBroadcast(v[0], 15u), subgroupBroadcast(v[1], 15u), subgroupBroadcast(v[2], 15u), subgroupBroadcast(v[3], 15u),
      subgroupBroadcast(v[4], 15u), subgroupBroadcast(v[5], 15u), subgroupBroadcast(v[6], 15u), subgroupBroadcast(v[7], 15u)));
  }
}

// Eight input channels, from group `channels` on, of the tap at `source` in the (enlarged) input; zeros outside of the
// image. `source` is unsigned on purpose: what lies above or to the left wraps around and is outside, too.
fn eight_of_tap(source: vec2<u32>, channels: u32, is_term: bool) -> array<f32, 8> {
  let at = source >> vec2<u32>(params.upsample_shift);
  let inside = is_term && at.x < params.in_width && at.y < params.in_height;
  let pixel = (at.y - params.x_first_row) * params.in_width + at.x;
  let address = select(0u, (params.x_offset + pixel * params.x_pitch) / 4u + 2u * channels, inside);
  let low = select(vec4<f32>(), x[address], inside);
  let high = select(vec4<f32>(), x[address + 1u], inside);
  return array<f32, 8>(low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w);
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn conv2d_subgroup_panel(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let p0 = (tile.z * 65535u + tile.x) * ROWS;
  // A fold's last tiles lie past the end.
  let rows = min(ROWS, max(p0, params.pixels) - p0);
  let n0 = tile.y * COLS * SUBGROUP_SIZE + lane;
  let row_groups = params.kernel_size * params.kernel_size * params.groups;
  var w_row: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) {
    w_row[c] = params.weight_offset + min(n0 + c * SUBGROUP_SIZE, params.cols - 1u) * row_groups;
  }
  let first = params.first_pixel + p0;
  let first_row = first / params.out_width;
  let first_column = first - first_row * params.out_width;

  // Pixel r's sums lie in slot r + 1 while they are not in `s`: see matmul_subgroup_panel.
  var sum: array<array<f32, COLS>, ROWS + 1u>;
  var s: array<f32, COLS>;
  var panel: Panel;
  for (var g0 = 0u; g0 < row_groups; g0 += SUBGROUP_SIZE) {
    // What a shorter last panel leaves of the one before is multiplied with zeros.
    for (var g = 0u; g < min(SUBGROUP_SIZE, row_groups - g0); g++) {
      for (var c = 0u; c < COLS; c++) {
        let w = load_weight(w_row[c] + g0 + g);
        panel[8u * g][c] = w[0].x;
        panel[8u * g + 1u][c] = w[0].y;
        panel[8u * g + 2u][c] = w[0].z;
        panel[8u * g + 3u][c] = w[0].w;
        panel[8u * g + 4u][c] = w[1].x;
        panel[8u * g + 5u][c] = w[1].y;
        panel[8u * g + 6u][c] = w[1].z;
        panel[8u * g + 7u][c] = w[1].w;
      }
    }
    // Divisions are slow on a CPU's vectors: some for a panel, none for a pixel.
    let tap = (g0 + lane) / params.groups;
    let channels = g0 + lane - tap * params.groups;
    let ky = tap / params.kernel_size;
    let offset = vec2<u32>(tap - ky * params.kernel_size, ky) - vec2<u32>(params.padding);
    let is_term = g0 + lane < row_groups;
    var pixel = vec2<u32>(first_column, first_row);
    for (var r = 0u; r < rows; r++) {
      let v = eight_of_tap(pixel * params.stride + offset, channels, is_term);
      pixel.x += 1u;
      pixel = select(pixel, vec2<u32>(0u, pixel.y + 1u), pixel.x == params.out_width);
      for (var c = 0u; c < COLS; c++) {
        sum[r][c] = s[c];
        s[c] = sum[r + 1u][c];
      }
      add_panel(&s, &panel, v);
    }
    for (var c = 0u; c < COLS; c++) {
      sum[rows][c] = s[c];
    }
  }

  for (var r = 0u; r < rows; r++) {
    for (var c = 0u; c < COLS; c++) {
      let n = n0 + c * SUBGROUP_SIZE;
      if (n < params.y_cols) {
        let at = params.y_offset + (p0 + r) * params.y_pitch + n;
        var value = 0.0;
        if (n < params.cols) {
          value = sum[r + 1u][c] + bias[params.bias_offset + n];
          if (ACCUMULATE) {
            value += y[at];
          }
        }
        y[at] = value;
      }
    }
  }
}
