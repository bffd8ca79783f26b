// attention_subgroup_matrix: y[i, h] = sum_j softmax_j(scale * q[h, i] . k[h / heads_per_kv, j]) * v[h / heads_per_kv, j]
//
//   q        [heads, tokens, GROUPS * 8]      f16, zero-padded head size
//   k        [kv heads, tokens, GROUPS * 8]   f16
//   v        [kv heads, tokens, GROUPS * 8]   f32
//   v_scale  [kv heads, tokens, 2]            f32   of row_scale: a power of two for each row of v, and its reciprocal
//   limit    [1]                              u32   HAS_LIMIT only: keys at and beyond it are invisible; at least 1
//   y        [tokens, heads * head_size]      f32   column block h holds head h; must not alias q, k, v
//   state    [heads, queries, 2]              f32   reference and sum of rows whose keys are bound in several pieces
//
// The same function as attention with v and the probabilities rounded to f16, for matrix units that multiply f16 and add
// in f32. v may lie anywhere in f32: row j is multiplied with its s_j before it is rounded, and 2^score[j] divided by it,
// which is free, as the exponent takes it: p[j] = 2^(score[j] - log2(s_j) - r). So p and v take all of f16's range, and
// what is lost is small against the row's largest term. r is a reference, not the maximum: sums are rescaled only when
// some p would exceed 2^15, then by a power of two, to where the largest is between 2^8 and 2^9.
// A workgroup is SUBGROUP_ROWS x SUBGROUP_COLS subgroups and computes ROWS * MATRIX_M queries for each row of them. Keys,
// then values pass through workgroup memory, KEYS at a time, the next keys on their way to registers while values are
// multiplied; scores pass too, because elements of matrices are out of reach; queries and sums stay in matrices. CAUSAL:
// key j is visible to query i if j <= i.
// Dispatch: (query tiles, heads, 1).

enable f16;
enable subgroups;
enable subgroup_size_control;
enable chromium_experimental_subgroup_matrix;

diagnostic(off, chromium.subgroup_matrix_uniformity);

// tunables
const GROUPS: u32 = 4u;
const MATRIX_M: u32 = 8u;
const MATRIX_N: u32 = 8u;
const MATRIX_K: u32 = 8u;
const ROWS: u32 = 2u;
const COLS: u32 = 2u;
const SUBGROUP_ROWS: u32 = 2u;
const SUBGROUP_COLS: u32 = 2u;
const SUBGROUP_SIZE: u32 = 32u;

override CAUSAL: bool = false;
override HAS_LIMIT: bool = false;

struct Params {
  queries: u32, // of this dispatch
  first_query: u32, // its position in the sequence
  keys: u32, // bound in this dispatch
  first_key: u32,
  is_first: u32, // 0 continues from state and y
  is_last: u32, // 0 leaves state and unnormalised y
  head_size: u32,
  first_head: u32,
  heads_per_kv: u32,
  first_kv_head: u32,
  scale: f32, // 1 / sqrt(head size), times log2(e)
  q_offset: u32, // elements, of the first head's first query
  q_head_stride: u32,
  k_offset: u32,
  k_head_stride: u32,
  v_offset: u32,
  v_head_stride: u32,
  v_scale_offset: u32, // rows
  v_scale_head_stride: u32,
  y_offset: u32, // of the first query's row, column 0 of head 0
  y_pitch: u32,
  y_cols: u32, // columns up to here are written; those past the last head are zeros
  heads: u32, // of the whole tensor
  state_offset: u32,
  state_head_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> v_scale: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> limit: array<u32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read_write> state: array<f32>;

const LOWEST: f32 = -3.4e38;
// Exponents of p: where the largest is put, and from where on it is put there again.
const TARGET: f32 = 8.0;
const CEILING: f32 = 15.0;

const BLOCK_M: u32 = ROWS * MATRIX_M; // queries of a subgroup
const TILE_M: u32 = SUBGROUP_ROWS * BLOCK_M;
const KEYS: u32 = SUBGROUP_COLS * COLS * MATRIX_N;
const WORKGROUP: u32 = SUBGROUP_ROWS * SUBGROUP_COLS * SUBGROUP_SIZE;
// Matrices along a head: of queries and keys, and of a subgroup's share of the values.
const STEPS: u32 = (GROUPS * 8u + MATRIX_K - 1u) / MATRIX_K;
const V_COLS: u32 = (GROUPS * 8u + SUBGROUP_COLS * MATRIX_N - 1u) / (SUBGROUP_COLS * MATRIX_N);
const WIDTH_GROUPS: u32 = max(STEPS * MATRIX_K, SUBGROUP_COLS * V_COLS * MATRIX_N) / 8u;
// Invocations that share the softmax of a query, and vectors of four scores of each.
const PARTS: u32 = min(WORKGROUP / TILE_M, 8u);
const VECTORS: u32 = KEYS / 4u / PARTS;
const_assert PARTS * VECTORS * 4u == KEYS;
// Keys and values are read 16 bytes at a time, neighbours by neighbouring invocations: how many an invocation reads.
const KEY_WORDS: u32 = (KEYS * WIDTH_GROUPS + WORKGROUP - 1u) / WORKGROUP;
const VALUE_WORDS: u32 = (KEYS * WIDTH_GROUPS * 2u + WORKGROUP - 1u) / WORKGROUP;
// Rows in workgroup memory, in vectors of four; they are longer than needed, because rows that begin in the same bank
// would wait for each other.
const PITCH: u32 = WIDTH_GROUPS * 2u + 2u;
const P_PITCH: u32 = KEYS / 4u + 2u;
const SCORE_PITCH: u32 = KEYS / 4u + PARTS;
// A matrix of sums of every subgroup.
const PASS_ROWS: u32 = SUBGROUP_ROWS * MATRIX_M;
const PASS_VECTORS: u32 = SUBGROUP_COLS * MATRIX_N / 4u;

// Queries at first, then keys and values in turn.
var<workgroup> kv_tile: array<vec4<f16>, KEYS * PITCH>;
var<workgroup> p_tile: array<vec4<f16>, TILE_M * P_PITCH>;
// Scores before they are scaled, or a matrix of sums of every subgroup.
var<workgroup> scores: array<vec4<f32>, TILE_M * SCORE_PITCH>;
var<workgroup> references: array<f32, TILE_M>;
var<workgroup> factors: array<f32, TILE_M>;
var<workgroup> partial: array<f32, TILE_M * PARTS>;
// Scales of the tile's values, and their logarithms.
var<workgroup> scales: array<vec4<f32>, KEYS / 4u>;
var<workgroup> shifts: array<vec4<f32>, KEYS / 4u>;
var<workgroup> exceeds: atomic<u32>;

fn queries_to_tile(index: u32, begin: u32, first: u32, base: u32) {
  for (var i = index; i < KEYS * WIDTH_GROUPS; i += WORKGROUP) {
    let line = i / WIDTH_GROUPS;
    let group = i % WIDTH_GROUPS;
    let row = first + begin + line;
    var eight = vec4<u32>();
    if (row < params.queries && group < GROUPS) {
      eight = q[base + row * GROUPS + group];
    }
    kv_tile[line * PITCH + 2u * group] = bitcast<vec4<f16>>(eight.xy);
    kv_tile[line * PITCH + 2u * group + 1u] = bitcast<vec4<f16>>(eight.zw);
  }
}

// Reads an invocation's share of the keys from j0 on; zeros at and beyond the end. Every turn of the loop is known, so that
// the reads need not wait for each other.
fn fetch_keys(words: ptr<function, array<vec4<u32>, KEY_WORDS>>, index: u32, j0: u32, end: u32, base: u32) {
  for (var i = 0u; i < KEY_WORDS; i++) {
    let line = (index + i * WORKGROUP) / WIDTH_GROUPS;
    let group = (index + i * WORKGROUP) % WIDTH_GROUPS;
    (*words)[i] = vec4<u32>();
    if (line < KEYS && j0 + line < end && group < GROUPS) {
      (*words)[i] = k[base + (j0 + line) * GROUPS + group];
    }
  }
}

fn keys_to_tile(words: ptr<function, array<vec4<u32>, KEY_WORDS>>, index: u32) {
  for (var i = 0u; i < KEY_WORDS; i++) {
    let line = (index + i * WORKGROUP) / WIDTH_GROUPS;
    let at = line * PITCH + (index + i * WORKGROUP) % WIDTH_GROUPS * 2u;
    if (line < KEYS) {
      kv_tile[at] = bitcast<vec4<f16>>((*words)[i].xy);
      kv_tile[at + 1u] = bitcast<vec4<f16>>((*words)[i].zw);
    }
  }
}

fn fetch_values(words: ptr<function, array<vec4<f32>, VALUE_WORDS>>, index: u32, j0: u32, end: u32, base: u32) {
  for (var i = 0u; i < VALUE_WORDS; i++) {
    let line = (index + i * WORKGROUP) / (WIDTH_GROUPS * 2u);
    let vector = (index + i * WORKGROUP) % (WIDTH_GROUPS * 2u);
    (*words)[i] = vec4<f32>();
    if (line < KEYS && j0 + line < end && vector < GROUPS * 2u) {
      (*words)[i] = v[base + (j0 + line) * GROUPS * 2u + vector];
    }
  }
}

fn values_to_tile(words: ptr<function, array<vec4<f32>, VALUE_WORDS>>, index: u32) {
  for (var i = 0u; i < VALUE_WORDS; i++) {
    let line = (index + i * WORKGROUP) / (WIDTH_GROUPS * 2u);
    let vector = (index + i * WORKGROUP) % (WIDTH_GROUPS * 2u);
    if (line < KEYS) {
      kv_tile[line * PITCH + vector] = vec4<f16>((*words)[i] * scales[line / 4u][line % 4u]);
    }
  }
}

// Scales of four values from key j on, and what row_scale gives as their reciprocals.
fn fetch_value_scales(j: u32, end: u32, base: u32) -> array<vec4<f32>, 2> {
  var pairs = array<vec4<f32>, 2>(vec4<f32>(1.0), vec4<f32>(1.0));
  for (var d = 0u; d < 4u; d++) {
    if (j + d < end) {
      let pair = v_scale[2u * (base + j + d)].xy;
      pairs[0][d] = pair.x;
      pairs[1][d] = pair.y;
    }
  }
  return pairs;
}

fn value_scales_to_tile(pairs: array<vec4<f32>, 2>, vector: u32) {
  // Rows near zero need no more, and sums of scales stay in range.
  let scale = min(pairs[0], vec4<f32>(exp2(40.0)));
  shifts[vector] = vec4<f32>(bitcast<vec4<i32>>(scale) >> vec4<u32>(23u)) - 127.0;
  // Where a row holds a NaN or an infinity, the reciprocal is a NaN. It reaches every query of the tile, also those from
  // which the key is hidden.
  scales[vector] = scale * (pairs[0] * pairs[1]);
}

// Four scores of a query as exponents, less the logarithms of their values' scales; LOWEST where the key is hidden.
fn exponents(row: u32, vector: u32, hidden_from: u32) -> vec4<f32> {
  let exponent = scores[row * SCORE_PITCH + vector] * params.scale - shifts[vector];
  let key = vec4<u32>(0u, 1u, 2u, 3u) + 4u * vector;
  return select(exponent, vec4<f32>(LOWEST), key >= vec4<u32>(hidden_from));
}

// Where an element of the r-th row and c-th column of matrices of all subgroups belongs: query and channel.
fn place_of(line: u32, vector: u32, r: u32, c: u32) -> vec2<u32> {
  let col = 4u * vector;
  return vec2<u32>(
    line / MATRIX_M * BLOCK_M + r * MATRIX_M + line % MATRIX_M,
    (col / MATRIX_N * V_COLS + c) * MATRIX_N + col % MATRIX_N);
}

@compute @workgroup_size(WORKGROUP) @subgroup_size(SUBGROUP_SIZE)
fn attention_subgroup_matrix(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let head = params.first_head + tile.y;
  let kv = head / params.heads_per_kv - params.first_kv_head;
  let first = tile.x * TILE_M;
  let block_row = subgroup / SUBGROUP_COLS;
  let block_col = subgroup % SUBGROUP_COLS;
  // The query whose softmax this invocation shares, and its part of the keys.
  let row = index / PARTS;
  let part = index % PARTS;
  let owns = row < TILE_M;
  // Where a subgroup's matrix of sums passes through workgroup memory.
  let pass_at = block_row * MATRIX_M * SCORE_PITCH + block_col * MATRIX_N / 4u;
  let y_head = params.y_offset + head * params.head_size;
  let saved = params.state_offset + head * params.state_head_stride;

  var query: array<array<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, STEPS>, ROWS>;
  var sum: array<array<subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>, V_COLS>, ROWS>;
  var total = 0.0;

  for (var begin = 0u; begin < TILE_M; begin += KEYS) {
    workgroupBarrier();
    queries_to_tile(index, begin, first, (params.q_offset + tile.y * params.q_head_stride) / 8u);
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
      let line = block_row * BLOCK_M + r * MATRIX_M;
      if (line / KEYS == begin / KEYS) {
        for (var s = 0u; s < STEPS; s++) {
          let at = line % KEYS * PITCH + s * MATRIX_K / 4u;
          query[r][s] = subgroupMatrixLoad<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, row_major>(&kv_tile, at, PITCH);
        }
      }
    }
  }
  atomicStore(&exceeds, 0u);
  if (owns && part == 0u) {
    references[row] = LOWEST;
  }
  if (params.is_first == 0u) {
    if (owns && part == 0u && first + row < params.queries) {
      references[row] = state[saved + 2u * (first + row)];
      total = state[saved + 2u * (first + row) + 1u];
    }
    for (var r = 0u; r < ROWS; r++) {
      for (var c = 0u; c < V_COLS; c++) {
        for (var i = index; i < PASS_ROWS * PASS_VECTORS; i += WORKGROUP) {
          let place = place_of(i / PASS_VECTORS, i % PASS_VECTORS, r, c);
          var four = vec4<f32>();
          for (var d = 0u; d < 4u; d++) {
            if (first + place.x < params.queries && place.y + d < params.head_size) {
              four[d] = y[y_head + (first + place.x) * params.y_pitch + place.y + d];
            }
          }
          scores[i / PASS_VECTORS * SCORE_PITCH + i % PASS_VECTORS] = four;
        }
        workgroupBarrier();
        sum[r][c] = subgroupMatrixLoad<subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>, row_major>(&scores, pass_at, SCORE_PITCH);
        workgroupBarrier();
      }
    }
  }

  var visible = params.first_key + params.keys;
  if (HAS_LIMIT) {
    visible = min(visible, limit[0]);
  }
  if (CAUSAL) {
    visible = min(visible, params.first_query + min(first + TILE_M, params.queries));
  }
  let end = max(visible, params.first_key) - params.first_key;
  // Of this invocation's query.
  var row_end = end;
  if (CAUSAL) {
    row_end = min(end, max(params.first_query + first + row + 1u, params.first_key) - params.first_key);
  }

  let k_base = (params.k_offset + kv * params.k_head_stride) / 8u;
  let v_base = (params.v_offset + kv * params.v_head_stride) / 4u;
  let scale_base = params.v_scale_offset + kv * params.v_scale_head_stride;
  var key_words: array<vec4<u32>, KEY_WORDS>;
  var value_words: array<vec4<f32>, VALUE_WORDS>;
  fetch_keys(&key_words, index, 0u, end, k_base);
  for (var j0 = 0u; j0 < end; j0 += KEYS) {
    // The values before have been multiplied.
    workgroupBarrier();
    keys_to_tile(&key_words, index);
    workgroupBarrier();
    var pairs: array<vec4<f32>, 2>;
    if (index < KEYS / 4u) {
      pairs = fetch_value_scales(j0 + 4u * index, end, scale_base);
    }
    // Set to zero in words: left to the language, it happens once, not in every turn of the loop (Dawn on Vulkan).
    var product = array<array<subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>, COLS>, ROWS>();
    for (var s = 0u; s < STEPS; s++) {
      for (var c = 0u; c < COLS; c++) {
        let at = (block_col * COLS + c) * MATRIX_N * PITCH + s * MATRIX_K / 4u;
        // A key is a column of what the queries are multiplied with.
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>, col_major>(&kv_tile, at, PITCH);
        for (var r = 0u; r < ROWS; r++) {
          product[r][c] = subgroupMatrixMultiplyAccumulate(query[r][s], right, product[r][c]);
        }
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      for (var c = 0u; c < COLS; c++) {
        let at = (block_row * BLOCK_M + r * MATRIX_M) * SCORE_PITCH + (block_col * COLS + c) * MATRIX_N / 4u;
        subgroupMatrixStore<row_major>(&scores, at, product[r][c], SCORE_PITCH);
      }
    }
    if (index < KEYS / 4u) {
      value_scales_to_tile(pairs, index);
    }
    workgroupBarrier();

    // Values before exponents: there are no registers for both beside the sums.
    fetch_values(&value_words, index, j0, end, v_base);
    values_to_tile(&value_words, index);
    // Exponents stay in registers, for sums to pass through where the scores are.
    let hidden_from = max(row_end, j0) - j0;
    var exponent: array<vec4<f32>, VECTORS>;
    if (owns) {
      var highest = vec4<f32>(LOWEST);
      for (var i = 0u; i < VECTORS; i++) {
        exponent[i] = exponents(row, part + i * PARTS, hidden_from);
        highest = max(highest, exponent[i]);
      }
      let most = max(max(highest.x, highest.y), max(highest.z, highest.w));
      partial[index] = most;
      if (most > references[row] + CEILING) {
        atomicStore(&exceeds, 1u);
      }
    }
    if (workgroupUniformLoad(&exceeds) == 1u) {
      if (owns && part == 0u) {
        var highest = LOWEST;
        for (var i = 0u; i < PARTS; i++) {
          highest = max(highest, partial[index + i]);
        }
        let before = references[row];
        let now = select(before, floor(highest) - TARGET, highest > before + CEILING);
        references[row] = now;
        factors[row] = exp2(before - now);
      }
      atomicStore(&exceeds, 0u);
      workgroupBarrier();
      if (owns) {
        total *= factors[row];
      }
      for (var r = 0u; r < ROWS; r++) {
        for (var c = 0u; c < V_COLS; c++) {
          subgroupMatrixStore<row_major>(&scores, pass_at, sum[r][c], SCORE_PITCH);
          workgroupBarrier();
          for (var i = index; i < PASS_ROWS * PASS_VECTORS; i += WORKGROUP) {
            let place = place_of(i / PASS_VECTORS, i % PASS_VECTORS, r, c);
            scores[i / PASS_VECTORS * SCORE_PITCH + i % PASS_VECTORS] *= factors[place.x];
          }
          workgroupBarrier();
          sum[r][c] = subgroupMatrixLoad<subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>, row_major>(&scores, pass_at, SCORE_PITCH);
          workgroupBarrier();
        }
      }
    }

    if (owns) {
      for (var i = 0u; i < VECTORS; i++) {
        let vector = part + i * PARTS;
        let is_hidden = exponent[i] == vec4<f32>(LOWEST);
        let p = select(exp2(exponent[i] - references[row]), vec4<f32>(), is_hidden);
        let weights = select(p * scales[vector], vec4<f32>(), is_hidden);
        total += (weights.x + weights.y) + (weights.z + weights.w);
        p_tile[row * P_PITCH + vector] = vec4<f16>(p);
      }
    }
    workgroupBarrier();
    fetch_keys(&key_words, index, j0 + KEYS, end, k_base);
    for (var s = 0u; s < KEYS / MATRIX_K; s++) {
      var left: array<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        let at = (block_row * BLOCK_M + r * MATRIX_M) * P_PITCH + s * MATRIX_K / 4u;
        left[r] = subgroupMatrixLoad<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, row_major>(&p_tile, at, P_PITCH);
      }
      for (var c = 0u; c < V_COLS; c++) {
        let at = s * MATRIX_K * PITCH + (block_col * V_COLS + c) * MATRIX_N / 4u;
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>, row_major>(&kv_tile, at, PITCH);
        for (var r = 0u; r < ROWS; r++) {
          sum[r][c] = subgroupMatrixMultiplyAccumulate(left[r], right, sum[r][c]);
        }
      }
    }
  }

  workgroupBarrier();
  if (owns) {
    partial[index] = total;
  }
  workgroupBarrier();
  if (owns && part == 0u && first + row < params.queries) {
    var whole = 0.0;
    for (var i = 0u; i < PARTS; i++) {
      whole += partial[index + i];
    }
    factors[row] = select(1.0, 1.0 / whole, params.is_last == 1u);
    if (params.is_last == 0u) {
      state[saved + 2u * (first + row)] = references[row];
      state[saved + 2u * (first + row) + 1u] = whole;
    }
  }
  // The last head writes the row's padding.
  let columns = select(params.head_size, params.y_cols - head * params.head_size, head == params.heads - 1u);
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < V_COLS; c++) {
      subgroupMatrixStore<row_major>(&scores, pass_at, sum[r][c], SCORE_PITCH);
      workgroupBarrier();
      for (var i = index; i < PASS_ROWS * PASS_VECTORS; i += WORKGROUP) {
        let place = place_of(i / PASS_VECTORS, i % PASS_VECTORS, r, c);
        let four = scores[i / PASS_VECTORS * SCORE_PITCH + i % PASS_VECTORS] * factors[place.x];
        for (var d = 0u; d < 4u; d++) {
          let channel = place.y + d;
          if (first + place.x < params.queries && channel < columns) {
            y[y_head + (first + place.x) * params.y_pitch + channel] = select(0.0, four[d], channel < params.head_size);
          }
        }
      }
      workgroupBarrier();
    }
  }
  // What of it lies beyond the matrices: a pitch is a multiple of 8.
  for (var i = index; i < TILE_M * 8u; i += WORKGROUP) {
    let channel = SUBGROUP_COLS * V_COLS * MATRIX_N + i % 8u;
    if (first + i / 8u < params.queries && channel < columns) {
      y[y_head + (first + i / 8u) * params.y_pitch + channel] = 0.0;
    }
  }
}
