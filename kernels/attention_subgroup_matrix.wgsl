// attention_subgroup_matrix: y[i, h] = sum_j softmax_j(scale * q[h, i] . k[h / heads_per_kv, j]) * v[h / heads_per_kv, j]
// with: attention_call, matrix_shape
//
//   q        [heads, tokens, GROUPS * 8]      f16, zero-padded head size
//   k        [kv heads, tokens, GROUPS * 8]   f16
//   v        [kv heads, tokens, GROUPS * 8]   f32
//   v_scale  [kv heads, tokens, 2]            f32   of row_scale: a power of two for each row of v, and its reciprocal
//   limit    [1]                              u32   HAS_LIMIT only: keys at and beyond it are invisible; at least 1
//   y        [tokens, heads * head_size]      f32   column block h holds head h; must not alias q, k, v
//   state    [heads, queries, 2]              f32   reference and sum of rows whose keys are bound in several pieces
//
// The same function as attention with v and the probabilities rounded to f16, on matrix units that multiply f16 and add
// in f32. v may have any values of f32: row j is multiplied with its scale s_j before it is rounded, and the
// probability is divided by it, which is free, because it is a difference of exponents: p[j] = 2^(score[j] - log2(s_j)
// - r). So p and v use all of f16's range, and what is lost is small against the row's largest term. r is a reference,
// not the maximum: sums are rescaled only when some p would exceed 2^15, by a power of two that makes the largest one
// lie between 2^8 and 2^9. A workgroup computes TILE_M queries: see matrix_shape. Keys and then values pass through
// workgroup memory, KEYS at a time; the next keys are on their way to registers while values are multiplied. Kernels
// cannot reach the elements of a matrix, so scores pass through it, too; queries and sums stay in matrices. CAUSAL: key
// j is visible to query i if j <= i.
// Dispatch: (query tiles, heads, 1).

enable f16, subgroups, subgroup_size_control, chromium_experimental_subgroup_matrix;

diagnostic(off, chromium.subgroup_matrix_uniformity);

// tunables
const ROWS: u32 = 2u;
const COLS: u32 = 2u;

@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> v_scale: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> limit: array<u32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read_write> state: array<f32>;

// The exponent of the largest p after a rescaling, and the one that p must not exceed.
const TARGET: f32 = 8.0;
const CEILING: f32 = 15.0;

const KEYS: u32 = SUBGROUP_COLS * COLS * MATRIX_N;
// How many matrices lie along a head: those of queries and keys, and those of a subgroup's share of the values.
const STEPS: u32 = (GROUPS * 8u + MATRIX_K - 1u) / MATRIX_K;
const V_COLS: u32 = (GROUPS * 8u + SUBGROUP_COLS * MATRIX_N - 1u) / (SUBGROUP_COLS * MATRIX_N);
const WIDTH_GROUPS: u32 = max(STEPS * MATRIX_K, SUBGROUP_COLS * V_COLS * MATRIX_N) / 8u;
// PARTS invocations share the softmax of a query; each has VECTORS vectors of four scores.
const PARTS: u32 = min(WORKGROUP / TILE_M, 8u);
const VECTORS: u32 = KEYS / 4u / PARTS;
const_assert PARTS * VECTORS * 4u == KEYS;
// Neighbouring invocations read neighbouring 16 bytes; of the keys and the values an invocation reads so many.
const KEY_WORDS: u32 = (KEYS * WIDTH_GROUPS + WORKGROUP - 1u) / WORKGROUP;
const VALUE_WORDS: u32 = (KEYS * WIDTH_GROUPS * 2u + WORKGROUP - 1u) / WORKGROUP;
// Lengths of rows in workgroup memory, in vectors of four. They are longer than needed, because rows that begin in the
// same bank would wait for each other.
const PITCH: u32 = WIDTH_GROUPS * 2u + 2u;
const P_PITCH: u32 = KEYS / 4u + 2u;
const SCORE_PITCH: u32 = KEYS / 4u + PARTS;
// Rows and vectors of one matrix of sums of every subgroup, which pass through workgroup memory together.
const PASS_ROWS: u32 = SUBGROUP_ROWS * MATRIX_M;
const PASS_VECTORS: u32 = SUBGROUP_COLS * MATRIX_N / 4u;

// First the queries, then keys and values by turns.
var<workgroup> kv_tile: array<vec4<f16>, KEYS * PITCH>;
var<workgroup> p_tile: array<vec4<f16>, TILE_M * P_PITCH>;
// Unscaled scores, or one matrix of sums of every subgroup.
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

// Reads an invocation's share of the keys from j0 on; zeros from `end` on. The loop has a known length, so that the
// reads need not wait for each other.
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

// The scales of four rows of values from key j on, and their reciprocals.
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
  // Rows near zero need no larger scale, and sums of scales must not overflow.
  let scale = min(pairs[0], vec4<f32>(exp2(40.0)));
  shifts[vector] = vec4<f32>(bitcast<vec4<i32>>(scale) >> vec4<u32>(23u)) - 127.0;
  // The reciprocal is a NaN if the row has a NaN or an infinity. It reaches all queries of the tile, also those that do
  // not see the key.
  scales[vector] = scale * (pairs[0] * pairs[1]);
}

// The exponents of four keys: their scores less the logarithms of their values' scales; LOWEST for hidden keys.
fn exponents(row: u32, vector: u32, visible: u32) -> vec4<f32> {
  let exponent = scores[row * SCORE_PITCH + vector] * params.scale - shifts[vector];
  let key = vec4<u32>(0u, 1u, 2u, 3u) + 4u * vector;
  return select(exponent, vec4<f32>(LOWEST), key >= vec4<u32>(visible));
}

// Query and channel of a vector of four sums that passes through workgroup memory with matrix [r][c] of every subgroup.
fn query_and_channel(line: u32, vector: u32, r: u32, c: u32) -> vec2<u32> {
  let col = 4u * vector;
  return vec2<u32>(
    line / MATRIX_M * BLOCK_M + r * MATRIX_M + line % MATRIX_M,
    (col / MATRIX_N * V_COLS + c) * MATRIX_N + col % MATRIX_N);
}

@compute @workgroup_size(WORKGROUP) @subgroup_size(SUBGROUP_SIZE) fn attention_subgroup_matrix(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let head = params.first_head + tile.y;
  let first = tile.x * TILE_M;
  let block_row = subgroup / SUBGROUP_COLS;
  let block_col = subgroup % SUBGROUP_COLS;
  // The invocation has this part of the softmax of this query.
  let row = index / PARTS;
  let part = index % PARTS;
  let owns = row < TILE_M;
  // Where the subgroup's matrices of sums pass through workgroup memory.
  let pass_at = block_row * MATRIX_M * SCORE_PITCH + block_col * MATRIX_N / 4u;

  var query: array<array<Left, STEPS>, ROWS>;
  var sum: array<array<Result, V_COLS>, ROWS>;
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
          query[r][s] = subgroupMatrixLoad<Left, row_major>(&kv_tile, at, PITCH);
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
      let kept = kept_state(head, first + row);
      references[row] = kept.x;
      total = kept.y;
    }
    for (var r = 0u; r < ROWS; r++) {
      for (var c = 0u; c < V_COLS; c++) {
        for (var i = index; i < PASS_ROWS * PASS_VECTORS; i += WORKGROUP) {
          let place = query_and_channel(i / PASS_VECTORS, i % PASS_VECTORS, r, c);
          let at = i / PASS_VECTORS * SCORE_PITCH + i % PASS_VECTORS;
          scores[at] = vec4<f32>();
          if (first + place.x < params.queries) {
            scores[at] = four_of_y(y_row_of(head, first + place.x), place.y);
          }
        }
        workgroupBarrier();
        sum[r][c] = subgroupMatrixLoad<Result, row_major>(&scores, pass_at, SCORE_PITCH);
        workgroupBarrier();
      }
    }
  }

  let end = visible_keys(first, TILE_M);
  let row_end = hidden_from(first + row, end); // of this invocation's query

  let k_begin = keys_of(head) / 8u;
  let v_begin = values_of(head) / 4u;
  let scale_begin = params.v_scale_offset + kv_head_of(head) * params.v_scale_head_stride;
  var key_words: array<vec4<u32>, KEY_WORDS>;
  var value_words: array<vec4<f32>, VALUE_WORDS>;
  fetch_keys(&key_words, index, 0u, end, k_begin);
  for (var j0 = 0u; j0 < end; j0 += KEYS) {
    // The last keys' values have been multiplied.
    workgroupBarrier();
    keys_to_tile(&key_words, index);
    workgroupBarrier();
    var pairs: array<vec4<f32>, 2>;
    if (index < KEYS / 4u) {
      pairs = fetch_value_scales(j0 + 4u * index, end, scale_begin);
    }
    // Explicit zeros: without them the variable would be zero in the first turn of the loop only (Dawn on Vulkan).
    var product = array<array<Result, COLS>, ROWS>();
    for (var s = 0u; s < STEPS; s++) {
      for (var c = 0u; c < COLS; c++) {
        let at = (block_col * COLS + c) * MATRIX_N * PITCH + s * MATRIX_K / 4u;
        // The matrix that queries are multiplied with has a key in each column.
        let right = subgroupMatrixLoad<Right, col_major>(&kv_tile, at, PITCH);
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

    // Values come before exponents, because there are not enough registers for both and the sums.
    fetch_values(&value_words, index, j0, end, v_begin);
    values_to_tile(&value_words, index);
    // Exponents stay in registers, because sums may pass through where the scores are.
    let row_keys = max(row_end, j0) - j0;
    var exponent: array<vec4<f32>, VECTORS>;
    if (owns) {
      var highest = vec4<f32>(LOWEST);
      for (var i = 0u; i < VECTORS; i++) {
        exponent[i] = exponents(row, part + i * PARTS, row_keys);
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
            let place = query_and_channel(i / PASS_VECTORS, i % PASS_VECTORS, r, c);
            scores[i / PASS_VECTORS * SCORE_PITCH + i % PASS_VECTORS] *= factors[place.x];
          }
          workgroupBarrier();
          sum[r][c] = subgroupMatrixLoad<Result, row_major>(&scores, pass_at, SCORE_PITCH);
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
    fetch_keys(&key_words, index, j0 + KEYS, end, k_begin);
    for (var s = 0u; s < KEYS / MATRIX_K; s++) {
      var left: array<Left, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        let at = (block_row * BLOCK_M + r * MATRIX_M) * P_PITCH + s * MATRIX_K / 4u;
        left[r] = subgroupMatrixLoad<Left, row_major>(&p_tile, at, P_PITCH);
      }
      for (var c = 0u; c < V_COLS; c++) {
        let at = s * MATRIX_K * PITCH + (block_col * V_COLS + c) * MATRIX_N / 4u;
        let right = subgroupMatrixLoad<Right, row_major>(&kv_tile, at, PITCH);
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
    keep_state(head, first + row, references[row], whole);
  }
  let columns = columns_of(head);
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < V_COLS; c++) {
      subgroupMatrixStore<row_major>(&scores, pass_at, sum[r][c], SCORE_PITCH);
      workgroupBarrier();
      for (var i = index; i < PASS_ROWS * PASS_VECTORS; i += WORKGROUP) {
        let place = query_and_channel(i / PASS_VECTORS, i % PASS_VECTORS, r, c);
        let four = scores[i / PASS_VECTORS * SCORE_PITCH + i % PASS_VECTORS] * factors[place.x];
        if (first + place.x < params.queries) {
          write_four(y_row_of(head, first + place.x), place.y, columns, four);
        }
      }
      workgroupBarrier();
    }
  }
  // Padding beyond the matrices; there is less than 8 of it, because a pitch is a multiple of 8.
  for (var i = index; i < TILE_M * 8u; i += WORKGROUP) {
    let channel = SUBGROUP_COLS * V_COLS * MATRIX_N + i % 8u;
    if (first + i / 8u < params.queries && channel < columns) {
      y[y_row_of(head, first + i / 8u) + channel] = 0.0;
    }
  }
}
