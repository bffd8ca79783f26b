// matmul_subgroup: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
//
//   a        [rows, groups * 8]  f32 or f16
//   weight   [cols, groups * 8]  f32, bf16 or f16, rows zero-padded to a multiple of 8
//   up       as weight           SILU_GATE only: the rows that are multiplied with the gated ones
//   bias     [cols]              f32   HAS_BIAS only
//   gate     [cols]              f32   HAS_GATE only
//   y        [rows, cols]        f32   must not alias a; read only if ACCUMULATE
//
// The same function as matmul, for devices whose subgroup is one SIMD register (CPU drivers): a lane loads one element
// of a row, and broadcasts replace the loads of the other lanes, which are gathers there. No workgroup memory.
// epilogue(s) = s [+ bias[n]]; SILU_GATE: silu(s) * s_up; HAS_GATE: gate[n] * s; ACCUMULATE: y[m, n] + s.
// One subgroup computes ROWS x (COLS * SUBGROUP_SIZE). Dispatch: (row tiles, column tiles, 1); rows vary fastest, so that
// the weights of a column tile stay in cache.

enable subgroups;

// tunables
const A_TYPE: u32 = 0u;
const WEIGHT_TYPE: u32 = 1u;
const ROWS: u32 = 4u;
const COLS: u32 = 4u;
const SUBGROUP_SIZE: u32 = 8u;

override HAS_BIAS: bool = false;
override HAS_GATE: bool = false;
override SILU_GATE: bool = false;
override ACCUMULATE: bool = false;

struct Params {
  rows: u32,
  cols: u32,
  groups: u32, // of 8 elements, in a row of the weight
  a_offset: u32, // elements
  a_pitch: u32,
  weight_offset: u32, // groups
  up_offset: u32, // groups
  bias_offset: u32,
  gate_offset: u32,
  y_offset: u32,
  y_pitch: u32,
  y_cols: u32, // columns to write; those from cols on are zeros
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn a_at(element: u32) -> f32 {
  if (A_TYPE == 2u) {
    let pair = unpack2x16float(a[element >> 1u]);
    return select(pair.x, pair.y, (element & 1u) == 1u);
  }
  return bitcast<f32>(a[element]);
}

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

fn load_up(group: u32) -> array<vec4<f32>, 2> {
  if (WEIGHT_TYPE == 0u) {
    return unpack8(up[2u * group], up[2u * group + 1u], 0u);
  }
  return unpack8(up[group], vec4<u32>(), WEIGHT_TYPE);
}

// With SILU_GATE the second half of the column accumulators holds the up projection.
const HALF: u32 = COLS / 2u;

@compute @workgroup_size(SUBGROUP_SIZE)
fn matmul_subgroup(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let m0 = tile.x * ROWS;
  let tile_cols = select(COLS, HALF, SILU_GATE);
  let n0 = tile.y * tile_cols * SUBGROUP_SIZE + lane;
  var sum: array<array<f32, COLS>, ROWS>;
  var w_row: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) {
    let n = n0 + select(c, c % HALF, SILU_GATE) * SUBGROUP_SIZE;
    w_row[c] = min(n, params.cols - 1u) * params.groups;
  }
  var a_row: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    a_row[r] = params.a_offset + min(m0 + r, params.rows - 1u) * params.a_pitch + (lane & 7u);
  }

  for (var k = 0u; k < params.groups; k++) {
    var w: array<array<vec4<f32>, 2>, COLS>;
    for (var c = 0u; c < COLS; c++) {
      if (SILU_GATE && c >= HALF) {
        w[c] = load_up(params.up_offset + w_row[c] + k);
      } else {
        w[c] = load_weight(params.weight_offset + w_row[c] + k);
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      let low = a_at(a_row[r] + 8u * k);
      var high = low;
      if (SUBGROUP_SIZE < 8u) {
        high = a_at(a_row[r] + 8u * k + 4u);
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

  for (var r = 0u; r < ROWS; r++) {
    let m = m0 + r;
    // Over all of the array: only then is it certain that the driver unrolls the loop.
    for (var c = 0u; c < COLS; c++) {
      let n = n0 + c * SUBGROUP_SIZE;
      if (c < tile_cols && m < params.rows && n < params.y_cols) {
        let at = params.y_offset + m * params.y_pitch + n;
        var value = 0.0;
        if (n < params.cols) {
          value = sum[r][c];
          if (HAS_BIAS) {
            value += bias[params.bias_offset + n];
          }
          if (SILU_GATE) {
            value = value / (1.0 + exp(-max(value, -87.0))) * sum[r][(c + HALF) % COLS];
          }
          if (HAS_GATE) {
            value *= gate[params.gate_offset + n];
          }
          if (ACCUMULATE) {
            value += y[at];
          }
        }
        y[at] = value;
      }
    }
  }
}
