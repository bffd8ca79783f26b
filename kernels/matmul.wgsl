// matmul: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
//
//   a        [rows, groups * 8]  f32 or f16
//   weight   [cols, groups * 8]  f32, bf16 or f16, rows zero-padded to a multiple of 8
//   up       as weight           SILU_GATE only: the rows that are multiplied with the gated ones
//   bias     [cols]              f32   HAS_BIAS only
//   gate     [cols]              f32   HAS_GATE only
//   y        [rows, cols]        f32   must not alias a; read only if ACCUMULATE
//
// epilogue(s) = s [+ bias[n]]; SILU_GATE: silu(s) * s_up; HAS_GATE: gate[n] * s; ACCUMULATE: y[m, n] + s.
// A workgroup of 16 x 16 invocations computes a tile of 16 ROWS x 16 COLS (SILU_GATE: half of the columns, each twice), an
// invocation ROWS x COLS; 16 elements of k at a time pass through workgroup memory as f32.
// Dispatch: (row tiles, column tiles, 1).

// tunables
const A_TYPE: u32 = 0u;
const WEIGHT_TYPE: u32 = 1u;
const ROWS: u32 = 4u;
const COLS: u32 = 4u;

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

const TILE_M: u32 = 16u * ROWS;
const TILE_N: u32 = 16u * COLS;
const STEP: u32 = 16u; // elements of k in workgroup memory
const HALF: u32 = TILE_N / 2u;
// Groups of eight elements that an invocation brings at a time.
const LOADS: u32 = ((TILE_M + TILE_N) * STEP / 8u + 255u) / 256u;

// Four elements of k of one row (column), [k / 4][row]: neighbouring invocations read neighbouring vectors.
var<workgroup> a_tile: array<vec4<f32>, TILE_M * STEP / 4u>;
var<workgroup> w_tile: array<vec4<f32>, TILE_N * STEP / 4u>;

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

@compute @workgroup_size(16, 16)
fn matmul(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let tile_cols = select(TILE_N, HALF, SILU_GATE);
  let m_first = tile.x * TILE_M;
  let n_first = tile.y * tile_cols;
  let tx = index % 16u; // columns tx, tx + 16, … of the tile
  let ty = index / 16u; // rows ty, ty + 16, …

  // Lines of the tiles are rows of a, then rows of the weight; neighbouring invocations bring a line's two groups.
  // Gated tiles hold gate columns, then the up columns that belong to them.
  var sum: array<array<f32, COLS>, ROWS>;
  for (var k = 0u; k < params.groups; k += 2u) {
    var loaded: array<array<vec4<f32>, 2>, LOADS>;
    for (var i = 0u; i < LOADS; i++) {
      let line = (256u * i + index) / 2u;
      let group = k + index % 2u;
      loaded[i] = array<vec4<f32>, 2>(vec4<f32>(), vec4<f32>());
      if (line < TILE_M) {
        if (m_first + line < params.rows && group < params.groups) {
          loaded[i] = load_a((params.a_offset + (m_first + line) * params.a_pitch) / 8u + group);
        }
      } else if (line < TILE_M + TILE_N) {
        let is_up = SILU_GATE && line - TILE_M >= HALF;
        let n = n_first + line - TILE_M - select(0u, HALF, is_up);
        if (n < params.cols && group < params.groups) {
          if (is_up) {
            loaded[i] = load_up(params.up_offset + n * params.groups + group);
          } else {
            loaded[i] = load_weight(params.weight_offset + n * params.groups + group);
          }
        }
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < LOADS; i++) {
      let line = (256u * i + index) / 2u;
      let part = 2u * (index % 2u);
      if (line < TILE_M) {
        a_tile[part * TILE_M + line] = loaded[i][0];
        a_tile[(part + 1u) * TILE_M + line] = loaded[i][1];
      } else if (line < TILE_M + TILE_N) {
        w_tile[part * TILE_N + line - TILE_M] = loaded[i][0];
        w_tile[(part + 1u) * TILE_N + line - TILE_M] = loaded[i][1];
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < STEP / 4u; i++) {
      var cols: array<vec4<f32>, COLS>;
      for (var c = 0u; c < COLS; c++) {
        cols[c] = w_tile[i * TILE_N + tx + 16u * c];
      }
      for (var r = 0u; r < ROWS; r++) {
        let row = a_tile[i * TILE_M + ty + 16u * r];
        for (var c = 0u; c < COLS; c++) {
          sum[r][c] += dot(row, cols[c]);
        }
      }
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    let m = m_first + ty + 16u * r;
    for (var c = 0u; c < tile_cols / 16u; c++) {
      let n = n_first + tx + 16u * c;
      if (m < params.rows && n < params.y_cols) {
        let at = params.y_offset + m * params.y_pitch + n;
        var value = 0.0;
        if (n < params.cols) {
          value = sum[r][c];
          if (HAS_BIAS) {
            value += bias[params.bias_offset + n];
          }
          if (SILU_GATE) {
            value = value / (1.0 + exp(-max(value, -87.0))) * sum[r][(c + COLS / 2u) % COLS];
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
