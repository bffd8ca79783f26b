// matvec: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
//
//   a        [rows, groups * 8]  f32 or f16
//   weight   [cols, groups * 8]  f32, bf16 or f16, rows zero-padded to a multiple of 8
//   up       as weight           SILU_GATE only: the rows that are multiplied with the gated ones
//   bias     [cols]              f32   HAS_BIAS only
//   gate     [cols]              f32   HAS_GATE only
//   y        [rows, cols]        f32   must not alias a; read only if ACCUMULATE
//
// The same function as matmul for few rows, which is bound by reading the weight: LANES invocations share ROWS rows and
// COLS columns. They read neighbouring 16 bytes of a row of the weight, each its part of k, and use what they read for
// all of the rows. Sums meet in workgroup memory.
// epilogue(s) = s [+ bias[n]]; SILU_GATE: silu(s) * s_up; HAS_GATE: gate[n] * s; ACCUMULATE: y[m, n] + s.
// Dispatch: (row tiles, column tiles, 1); with SILU_GATE half of a tile's columns are those of up.

// tunables
const A_TYPE: u32 = 0u;
const WEIGHT_TYPE: u32 = 1u;
const ROWS: u32 = 4u;
const COLS: u32 = 4u;
const LANES: u32 = 64u;

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
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const HALF: u32 = COLS / 2u;
const SUMS: u32 = ROWS * COLS;
// One more than needed: what invocations write at the same time should lie in different banks.
const PITCH: u32 = SUMS + 1u;
// Sums are added up in two turns: each of CHUNKS invocations adds those of as many others, then one adds theirs.
const CHUNKS: u32 = max(LANES / SUMS, 1u);
const CHUNK: u32 = LANES / CHUNKS;

var<workgroup> partial: array<f32, LANES * PITCH>;

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

fn load_a(group: u32) -> array<vec4<f32>, 2> {
  if (A_TYPE == 0u) {
    return unpack8(a[2u * group], a[2u * group + 1u], 0u);
  }
  return unpack8(a[group], vec4<u32>(), A_TYPE);
}

@compute @workgroup_size(LANES)
fn matvec(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tile_cols = select(COLS, HALF, SILU_GATE);
  let m_first = tile.x * ROWS;
  let n_first = tile.y * tile_cols;
  var w_row: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) {
    w_row[c] = min(n_first + select(c, c % HALF, SILU_GATE), params.cols - 1u) * params.groups;
  }
  var a_row: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    a_row[r] = (params.a_offset + min(m_first + r, params.rows - 1u) * params.a_pitch) / 8u;
  }

  var sum: array<array<f32, COLS>, ROWS>;
  for (var k = lane; k < params.groups; k += LANES) {
    var w: array<array<vec4<f32>, 2>, COLS>;
    for (var c = 0u; c < COLS; c++) {
      if (SILU_GATE && c >= HALF) {
        w[c] = load_up(params.up_offset + w_row[c] + k);
      } else {
        w[c] = load_weight(params.weight_offset + w_row[c] + k);
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      let eight = load_a(a_row[r] + k);
      for (var c = 0u; c < COLS; c++) {
        sum[r][c] += dot(eight[0], w[c][0]) + dot(eight[1], w[c][1]);
      }
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLS; c++) {
      partial[lane * PITCH + r * COLS + c] = sum[r][c];
    }
  }
  workgroupBarrier();
  // Of one sum all of the invocations' parts, CHUNK at a time. LANES may be fewer than sums.
  var chunk_sum: array<f32, (SUMS + LANES - 1u) / LANES>;
  for (var i = lane; i < SUMS * CHUNKS; i += LANES) {
    var s = 0.0;
    for (var j = 0u; j < CHUNK; j++) {
      s += partial[(i / SUMS * CHUNK + j) * PITCH + i % SUMS];
    }
    chunk_sum[i / LANES] = s;
  }
  workgroupBarrier();
  for (var i = lane; i < SUMS * CHUNKS; i += LANES) {
    partial[i] = chunk_sum[i / LANES];
  }
  workgroupBarrier();
  for (var i = 1u; i < CHUNKS; i++) {
    if (lane < SUMS) {
      partial[lane] += partial[i * SUMS + lane];
    }
  }
  workgroupBarrier();

  for (var i = lane; i < SUMS; i += LANES) {
    let r = i / COLS;
    let c = i % COLS;
    let m = m_first + r;
    let n = n_first + c;
    if (c < tile_cols && m < params.rows && n < params.y_cols) {
      let at = params.y_offset + m * params.y_pitch + n;
      var value = 0.0;
      if (n < params.cols) {
        value = partial[i];
        if (HAS_BIAS) {
          value += bias[params.bias_offset + n];
        }
        if (SILU_GATE) {
          value = value / (1.0 + exp(-max(value, -87.0))) * partial[r * COLS + (c + HALF) % COLS];
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
