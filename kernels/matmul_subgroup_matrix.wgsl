// matmul_subgroup_matrix: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
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
// The same function as matmul with operands rounded to f16, for matrix units that multiply f16 and add in f32.
// epilogue(s) = s [+ bias[n]]; SILU_GATE: silu(s) * s_up; HAS_GATE: gate[n] * s; ACCUMULATE: y[m, n] + s.
// A workgroup is SUBGROUP_ROWS x SUBGROUP_COLS subgroups, a subgroup computes ROWS x COLS matrices of MATRIX_M x MATRIX_N
// (SILU_GATE: the tile holds its gate columns, then its up columns). STEP elements of k at a time pass through workgroup
// memory as f16; those of the next step are on their way to registers meanwhile. Elements of matrices are out of reach, so
// sums pass through workgroup memory too, a row of matrices at a time.
// Dispatch: (row tiles, column tiles, 1).

enable f16;
enable subgroups;
enable subgroup_size_control;
enable chromium_experimental_subgroup_matrix;

diagnostic(off, chromium.subgroup_matrix_uniformity);

// tunables
const A_TYPE: u32 = 2u;
const WEIGHT_TYPE: u32 = 1u;
const MATRIX_M: u32 = 16u;
const MATRIX_N: u32 = 16u;
const MATRIX_K: u32 = 16u;
const ROWS: u32 = 4u;
const COLS: u32 = 4u;
const SUBGROUP_ROWS: u32 = 2u;
const SUBGROUP_COLS: u32 = 2u;
const SUBGROUP_SIZE: u32 = 32u;
const STEP: u32 = 32u;

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

const BLOCK_M: u32 = ROWS * MATRIX_M; // of one subgroup
const BLOCK_N: u32 = COLS * MATRIX_N;
const TILE_M: u32 = SUBGROUP_ROWS * BLOCK_M;
const TILE_N: u32 = SUBGROUP_COLS * BLOCK_N;
const HALF_N: u32 = TILE_N / 2u;
const WORKGROUP: u32 = SUBGROUP_ROWS * SUBGROUP_COLS * SUBGROUP_SIZE;
// Operands are read 16 bytes at a time, neighbours by neighbouring invocations: the elements in them, and how many of
// them an invocation reads in a step.
const A_WIDTH: u32 = select(8u, 4u, A_TYPE == 0u);
const W_WIDTH: u32 = select(8u, 4u, WEIGHT_TYPE == 0u);
const A_WORDS: u32 = TILE_M * STEP / (A_WIDTH * WORKGROUP);
const W_WORDS: u32 = TILE_N * STEP / (W_WIDTH * WORKGROUP);
const_assert A_WORDS * A_WIDTH * WORKGROUP == TILE_M * STEP && W_WORDS * W_WIDTH * WORKGROUP == TILE_N * STEP;
// Rows in workgroup memory are longer than needed, because rows that begin in the same bank would wait for each other.
// Of the tiles four elements of k are a vector.
const PITCH: u32 = STEP / 4u + 2u;
const SUM_PITCH: u32 = TILE_N + 8u;
// Results for which an invocation reads gates and what they are added to before it writes one of them: reads would wait
// for the writes before them.
const BATCH: u32 = 8u;
const_assert SUBGROUP_ROWS * MATRIX_M * HALF_N % (BATCH * WORKGROUP) == 0u;

var<workgroup> a_tile: array<vec4<f16>, TILE_M * PITCH>;
var<workgroup> w_tile: array<vec4<f16>, TILE_N * PITCH>;
// A row of matrices of every subgroup, [SUBGROUP_ROWS * MATRIX_M, TILE_N].
var<workgroup> sums: array<f32, SUBGROUP_ROWS * MATRIX_M * SUM_PITCH>;
// Scales of the tile's rows and columns, and their reciprocals.
var<workgroup> a_scales: array<vec2<f32>, TILE_M>;
var<workgroup> w_scales: array<vec2<f32>, TILE_N>;

// The elements of 16 bytes as f16, times a scale that keeps them in its range; four of f32, eight of what is shorter. What
// is f16 already has no scale.
fn narrow(word: vec4<u32>, kind: u32, scale: f32) -> array<vec4<f16>, 2> {
  if (kind == 0u) {
    return array<vec4<f16>, 2>(vec4<f16>(bitcast<vec4<f32>>(word) * scale), vec4<f16>());
  }
  if (kind == 1u) {
    let low = bitcast<vec4<f32>>(word << vec4<u32>(16u)) * scale;
    let high = bitcast<vec4<f32>>(word & vec4<u32>(0xffff0000u)) * scale;
    return array<vec4<f16>, 2>(
      vec4<f16>(vec4<f32>(low.x, high.x, low.y, high.y)),
      vec4<f16>(vec4<f32>(low.z, high.z, low.w, high.w)));
  }
  return array<vec4<f16>, 2>(bitcast<vec4<f16>>(word.xy), bitcast<vec4<f16>>(word.zw));
}

// Reads an invocation's share of a's tile from element k of its rows on; zeros beyond its ends. Every turn of the loop is
// known, so that the reads need not wait for each other.
fn fetch_a(words: ptr<function, array<vec4<u32>, A_WORDS>>, index: u32, m_first: u32, k: u32) {
  for (var i = 0u; i < A_WORDS; i++) {
    let at = index + i * WORKGROUP;
    let m = m_first + at / (STEP / A_WIDTH);
    let element = k + at % (STEP / A_WIDTH) * A_WIDTH;
    (*words)[i] = vec4<u32>();
    if (m < params.rows && element < 8u * params.groups) {
      (*words)[i] = a[(params.a_offset + m * params.a_pitch + element) / A_WIDTH];
    }
  }
}

fn fetch_weight(words: ptr<function, array<vec4<u32>, W_WORDS>>, index: u32, n_first: u32, k: u32) {
  for (var i = 0u; i < W_WORDS; i++) {
    let at = index + i * WORKGROUP;
    let line = at / (STEP / W_WIDTH);
    let is_up = SILU_GATE && line >= HALF_N;
    let n = n_first + select(line, line - HALF_N, is_up);
    let element = k + at % (STEP / W_WIDTH) * W_WIDTH;
    (*words)[i] = vec4<u32>();
    if (n < params.cols && element < 8u * params.groups) {
      let in_row = 8u * n * params.groups + element;
      if (is_up) {
        (*words)[i] = up[(8u * params.up_offset + in_row) / W_WIDTH];
      } else {
        (*words)[i] = weight[(8u * params.weight_offset + in_row) / W_WIDTH];
      }
    }
  }
}

fn a_to_tile(words: ptr<function, array<vec4<u32>, A_WORDS>>, index: u32) {
  for (var i = 0u; i < A_WORDS; i++) {
    let at = index + i * WORKGROUP;
    let line = at / (STEP / A_WIDTH);
    let place = line * PITCH + at % (STEP / A_WIDTH) * (A_WIDTH / 4u);
    let eight = narrow((*words)[i], A_TYPE, a_scales[line].x);
    a_tile[place] = eight[0];
    if (A_WIDTH == 8u) {
      a_tile[place + 1u] = eight[1];
    }
  }
}

fn weight_to_tile(words: ptr<function, array<vec4<u32>, W_WORDS>>, index: u32) {
  for (var i = 0u; i < W_WORDS; i++) {
    let at = index + i * WORKGROUP;
    let line = at / (STEP / W_WIDTH);
    let place = line * PITCH + at % (STEP / W_WIDTH) * (W_WIDTH / 4u);
    let eight = narrow((*words)[i], WEIGHT_TYPE, w_scales[line].x);
    w_tile[place] = eight[0];
    if (W_WIDTH == 8u) {
      w_tile[place + 1u] = eight[1];
    }
  }
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

// Row and column in a tile of `cols` columns of cell i of the r-th row of matrices.
fn cell_of(i: u32, r: u32, cols: u32) -> vec2<u32> {
  let line = i / cols;
  return vec2<u32>(line / MATRIX_M * BLOCK_M + r * MATRIX_M + line % MATRIX_M, i % cols);
}

@compute @workgroup_size(WORKGROUP) @subgroup_size(SUBGROUP_SIZE)
fn matmul_subgroup_matrix(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let tile_cols = select(TILE_N, HALF_N, SILU_GATE);
  let m_first = tile.x * TILE_M;
  let n_first = tile.y * tile_cols;
  let block_row = subgroup / SUBGROUP_COLS;
  let block_col = subgroup % SUBGROUP_COLS;

  load_scales(index, m_first, n_first);
  var sum: array<array<subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>, COLS>, ROWS>;
  var a_words: array<vec4<u32>, A_WORDS>;
  var w_words: array<vec4<u32>, W_WORDS>;
  fetch_a(&a_words, index, m_first, 0u);
  fetch_weight(&w_words, index, n_first, 0u);
  for (var k = 0u; k < 8u * params.groups; k += STEP) {
    // The scales are there, and the step before has been multiplied.
    workgroupBarrier();
    a_to_tile(&a_words, index);
    weight_to_tile(&w_words, index);
    workgroupBarrier();
    fetch_a(&a_words, index, m_first, k + STEP);
    fetch_weight(&w_words, index, n_first, k + STEP);
    for (var s = 0u; s < STEP / MATRIX_K; s++) {
      var left: array<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        let at = (block_row * BLOCK_M + r * MATRIX_M) * PITCH + s * MATRIX_K / 4u;
        left[r] = subgroupMatrixLoad<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, row_major>(&a_tile, at, PITCH);
      }
      for (var c = 0u; c < COLS; c++) {
        let at = (block_col * BLOCK_N + c * MATRIX_N) * PITCH + s * MATRIX_K / 4u;
        // A row of the weight is a column of what a is multiplied with.
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>, col_major>(&w_tile, at, PITCH);
        for (var r = 0u; r < ROWS; r++) {
          sum[r][c] = subgroupMatrixMultiplyAccumulate(left[r], right, sum[r][c]);
        }
      }
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLS; c++) {
      let at = block_row * MATRIX_M * SUM_PITCH + block_col * BLOCK_N + c * MATRIX_N;
      subgroupMatrixStore<row_major>(&sums, at, sum[r][c], SUM_PITCH);
    }
    workgroupBarrier();
    for (var i = index; i < SUBGROUP_ROWS * MATRIX_M * tile_cols; i += BATCH * WORKGROUP) {
      var gates: array<f32, BATCH>;
      var before: array<f32, BATCH>;
      for (var b = 0u; b < BATCH; b++) {
        let cell = cell_of(i + b * WORKGROUP, r, tile_cols);
        gates[b] = 1.0;
        before[b] = 0.0;
        if (m_first + cell.x < params.rows && n_first + cell.y < params.cols) {
          if (HAS_GATE) {
            gates[b] = gate[params.gate_offset + n_first + cell.y];
          }
          if (ACCUMULATE) {
            before[b] = y[params.y_offset + (m_first + cell.x) * params.y_pitch + n_first + cell.y];
          }
        }
      }
      for (var b = 0u; b < BATCH; b++) {
        let cell = cell_of(i + b * WORKGROUP, r, tile_cols);
        let m = m_first + cell.x;
        let n = n_first + cell.y;
        if (m < params.rows && n < params.y_cols) {
          var value = 0.0;
          if (n < params.cols) {
            let sum_at = (i + b * WORKGROUP) / tile_cols * SUM_PITCH + cell.y;
            value = sums[sum_at] * a_scales[cell.x].y * w_scales[cell.y].y;
            if (HAS_BIAS) {
              value += bias[params.bias_offset + n];
            }
            if (SILU_GATE) {
              let other = sums[sum_at + HALF_N] * a_scales[cell.x].y * w_scales[HALF_N + cell.y].y;
              value = value / (1.0 + exp(-max(value, -87.0))) * other;
            }
            value = value * gates[b] + before[b];
          }
          y[params.y_offset + m * params.y_pitch + n] = value;
        }
      }
    }
    workgroupBarrier();
  }
}
