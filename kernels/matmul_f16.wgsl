// matmul_f16: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
//
//   a        [rows, groups * 8]  f32 or f16
//   weight   [cols, groups * 8]  f32, bf16 or f16, rows zero-padded to a multiple of 8
//   up       as weight           SILU_GATE only: the rows that are multiplied with the gated ones
//   bias     [cols]              f32   HAS_BIAS only
//   gate     [cols]              f32   HAS_GATE only
//   a_scale  [rows, 2]           f32   of row_scale, for an a in f32: each row times [r, 0], sums times [r, 1]
//   w_scale  [cols, 2]           f32   of row_scale, for a weight in f32 or bf16
//   u_scale  [cols, 2]           f32   of row_scale, for up in f32 or bf16
//   y        [rows, cols]        f32   must not alias a; read only if ACCUMULATE
//
// The same function as matmul with operands rounded to f16, which halves what passes through workgroup memory; products
// and sums are f32. For GPUs that have f16 but no matrix units.
// epilogue(s) = s [+ bias[n]]; SILU_GATE: silu(s) * s_up; HAS_GATE: gate[n] * s; ACCUMULATE: y[m, n] + s.
// A workgroup of 16 x 16 invocations computes a tile of 16 ROWS x 16 COLS (SILU_GATE: half of the columns, each twice), an
// invocation ROWS x COLS; 32 elements of k at a time pass through workgroup memory.
// Dispatch: (row tiles, column tiles, 1).

enable f16;

// tunables
const A_TYPE: u32 = 2u;
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
  a_scale_offset: u32, // rows
  w_scale_offset: u32,
  u_scale_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read> a_scale: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> w_scale: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> u_scale: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> y: array<f32>;

const TILE_M: u32 = 16u * ROWS;
const TILE_N: u32 = 16u * COLS;
const STEP: u32 = 32u; // elements of k in workgroup memory
const STEP_GROUPS: u32 = STEP / 8u;
const WORKGROUP: u32 = 256u;
const HALF_N: u32 = TILE_N / 2u;

// Four elements of k of one row (column), [k / 4][row]: neighbouring invocations read neighbouring vectors.
var<workgroup> a_tile: array<vec4<f16>, TILE_M * STEP / 4u>;
var<workgroup> w_tile: array<vec4<f16>, TILE_N * STEP / 4u>;
// Scales of the tile's rows and columns, and their reciprocals.
var<workgroup> a_scales: array<vec2<f32>, TILE_M>;
var<workgroup> w_scales: array<vec2<f32>, TILE_N>;

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

// The same eight as f16, times a scale that keeps them in its range; what is f16 already has none.
fn narrow8(word: vec4<u32>, more: vec4<u32>, kind: u32, scale: f32) -> array<vec4<f16>, 2> {
  if (kind == 2u) {
    return array<vec4<f16>, 2>(bitcast<vec4<f16>>(word.xy), bitcast<vec4<f16>>(word.zw));
  }
  let wide = unpack8(word, more, kind);
  return array<vec4<f16>, 2>(vec4<f16>(wide[0] * scale), vec4<f16>(wide[1] * scale));
}

fn narrow_weight(group: u32, scale: f32) -> array<vec4<f16>, 2> {
  if (WEIGHT_TYPE == 0u) {
    return narrow8(weight[2u * group], weight[2u * group + 1u], 0u, scale);
  }
  return narrow8(weight[group], vec4<u32>(), WEIGHT_TYPE, scale);
}

fn narrow_up(group: u32, scale: f32) -> array<vec4<f16>, 2> {
  if (WEIGHT_TYPE == 0u) {
    return narrow8(up[2u * group], up[2u * group + 1u], 0u, scale);
  }
  return narrow8(up[group], vec4<u32>(), WEIGHT_TYPE, scale);
}

fn narrow_a(group: u32, scale: f32) -> array<vec4<f16>, 2> {
  if (A_TYPE == 0u) {
    return narrow8(a[2u * group], a[2u * group + 1u], 0u, scale);
  }
  return narrow8(a[group], vec4<u32>(), A_TYPE, scale);
}

fn load_scales(index: u32, m_first: u32, n_first: u32) {
  for (var i = index; i < TILE_M; i += WORKGROUP) {
    a_scales[i] = vec2<f32>(1.0);
    if (A_TYPE != 2u && m_first + i < params.rows) {
      a_scales[i] = a_scale[2u * (params.a_scale_offset + m_first + i)].xy;
    }
  }
  for (var i = index; i < TILE_N; i += WORKGROUP) {
    let is_up = SILU_GATE && i >= HALF_N;
    let n = n_first + select(i, i - HALF_N, is_up);
    w_scales[i] = vec2<f32>(1.0);
    if (WEIGHT_TYPE != 2u && n < params.cols) {
      if (is_up) {
        w_scales[i] = u_scale[2u * (params.u_scale_offset + n)].xy;
      } else {
        w_scales[i] = w_scale[2u * (params.w_scale_offset + n)].xy;
      }
    }
  }
}

@compute @workgroup_size(16, 16)
fn matmul_f16(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let tile_cols = select(TILE_N, HALF_N, SILU_GATE);
  let m_first = tile.x * TILE_M;
  let n_first = tile.y * tile_cols;
  let tx = index % 16u; // columns tx, tx + 16, … of the tile
  let ty = index / 16u; // rows ty, ty + 16, …

  load_scales(index, m_first, n_first);
  var sum: array<array<f32, COLS>, ROWS>;
  for (var k = 0u; k < params.groups; k += STEP_GROUPS) {
    workgroupBarrier();
    for (var i = index; i < TILE_M * STEP_GROUPS; i += WORKGROUP) {
      let line = i / STEP_GROUPS;
      let group = k + i % STEP_GROUPS;
      var eight = array<vec4<f16>, 2>();
      if (m_first + line < params.rows && group < params.groups) {
        eight = narrow_a((params.a_offset + (m_first + line) * params.a_pitch) / 8u + group, a_scales[line].x);
      }
      let part = 2u * (i % STEP_GROUPS);
      a_tile[part * TILE_M + line] = eight[0];
      a_tile[(part + 1u) * TILE_M + line] = eight[1];
    }
    for (var i = index; i < TILE_N * STEP_GROUPS; i += WORKGROUP) {
      let line = i / STEP_GROUPS;
      let group = k + i % STEP_GROUPS;
      let is_up = SILU_GATE && line >= HALF_N;
      let n = n_first + select(line, line - HALF_N, is_up);
      var eight = array<vec4<f16>, 2>();
      if (n < params.cols && group < params.groups) {
        if (is_up) {
          eight = narrow_up(params.up_offset + n * params.groups + group, w_scales[line].x);
        } else {
          eight = narrow_weight(params.weight_offset + n * params.groups + group, w_scales[line].x);
        }
      }
      let part = 2u * (i % STEP_GROUPS);
      w_tile[part * TILE_N + line] = eight[0];
      w_tile[(part + 1u) * TILE_N + line] = eight[1];
    }
    workgroupBarrier();
    for (var i = 0u; i < STEP / 4u; i++) {
      var cols: array<vec4<f32>, COLS>;
      for (var c = 0u; c < COLS; c++) {
        cols[c] = vec4<f32>(w_tile[i * TILE_N + tx + 16u * c]);
      }
      for (var r = 0u; r < ROWS; r++) {
        let row = vec4<f32>(a_tile[i * TILE_M + ty + 16u * r]);
        for (var c = 0u; c < COLS; c++) {
          sum[r][c] += dot(row, cols[c]);
        }
      }
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    let m = m_first + ty + 16u * r;
    for (var c = 0u; c < tile_cols / 16u; c++) {
      let col = tx + 16u * c;
      let n = n_first + col;
      if (m < params.rows && n < params.y_cols) {
        let at = params.y_offset + m * params.y_pitch + n;
        let row_scale = a_scales[ty + 16u * r].y;
        var value = 0.0;
        if (n < params.cols) {
          value = sum[r][c] * row_scale * w_scales[col].y;
          if (HAS_BIAS) {
            value += bias[params.bias_offset + n];
          }
          if (SILU_GATE) {
            let other = sum[r][(c + COLS / 2u) % COLS] * row_scale * w_scales[HALF_N + col].y;
            value = value / (1.0 + exp(-max(value, -87.0))) * other;
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
