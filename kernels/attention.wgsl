// attention: y[i, h] = sum_j softmax_j(scale * q[h, i] . k[h / heads_per_kv, j]) * v[h / heads_per_kv, j]
//
//   q      [heads, tokens, GROUPS * 8]      f32 or f16, zero-padded head size
//   k      [kv heads, tokens, GROUPS * 8]   f32 or f16
//   v      [kv heads, tokens, GROUPS * 8]   f32
//   limit  [1]                              u32   HAS_LIMIT only: keys at and beyond it are invisible; at least 1
//   y      [tokens, heads * head_size]      f32   column block h holds head h; must not alias q, k, v
//   state  [heads, queries, 2]              f32   maximum and sum of rows whose keys are bound in several pieces
//
// A workgroup of KEYS / 4 x QUERIES / 4 invocations passes over KEYS keys at a time with a streaming softmax, exponents of
// two. An invocation scores 4 queries against 4 keys, while 16 channels of q and k at a time pass through workgroup memory;
// then it adds up COLS x 4 channels of its 4 queries, while the weights of 16 keys and their values pass through it.
// CAUSAL: key j is visible to query i if j <= i. Dispatch: (query tiles, heads, 1).

// tunables
const QK_TYPE: u32 = 0u;
const GROUPS: u32 = 16u;
const QUERIES: u32 = 64u;
const KEYS: u32 = 64u;

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
@group(0) @binding(4) var<storage, read> limit: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> state: array<f32>;

const LOWEST: f32 = -3.4e38;
const LANES: u32 = KEYS / 4u; // invocations that share 4 queries
const TEAMS: u32 = QUERIES / 4u;
const WORKGROUP: u32 = LANES * TEAMS;
const LINES: u32 = QUERIES + KEYS;
const VECTORS: u32 = GROUPS * 2u;
const COLS: u32 = (VECTORS + LANES - 1u) / LANES;
const STEP: u32 = 16u; // channels of q and k, and keys of v, in workgroup memory at a time
// Groups of eight channels that an invocation brings at a time.
const LOADS: u32 = (LINES * STEP / 8u + WORKGROUP - 1u) / WORKGROUP;

// Of q and k: four channels of one row, [channel / 4][row]; of v: [key][vector].
var<workgroup> tile: array<vec4<f32>, max(LINES * STEP / 4u, STEP * COLS * LANES)>;
// Of 4 keys, [query][key / 4]; at other times maxima or totals of an invocation's 4 queries.
var<workgroup> weights: array<vec4<f32>, QUERIES * STEP / 4u>;

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

fn load_q(group: u32) -> array<vec4<f32>, 2> {
  if (QK_TYPE == 0u) {
    return unpack8(q[2u * group], q[2u * group + 1u], 0u);
  }
  return unpack8(q[group], vec4<u32>(), QK_TYPE);
}

fn load_k(group: u32) -> array<vec4<f32>, 2> {
  if (QK_TYPE == 0u) {
    return unpack8(k[2u * group], k[2u * group + 1u], 0u);
  }
  return unpack8(k[group], vec4<u32>(), QK_TYPE);
}

// s + a . b as four fused operations; dot would take a fifth.
fn add_product(s: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
  return fma(a.x, b.x, fma(a.y, b.y, fma(a.z, b.z, fma(a.w, b.w, s))));
}

fn largest(a: vec4<f32>) -> f32 {
  return max(max(a.x, a.y), max(a.z, a.w));
}

@compute @workgroup_size(LANES, TEAMS)
fn attention(
  @builtin(workgroup_id) place: vec3<u32>,
  @builtin(local_invocation_id) own: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let head = params.first_head + place.y;
  let kv = head / params.heads_per_kv - params.first_kv_head;
  let first = place.x * QUERIES;
  let row = first + 4u * own.y; // the first of this invocation's queries
  let y_head = params.y_offset + head * params.head_size;
  let saved = params.state_offset + head * params.state_head_stride;
  // An element for each of the 4 queries.
  var top = vec4<f32>(LOWEST);
  var total = vec4<f32>(); // of this invocation's keys, until the end
  var sum: array<array<vec4<f32>, COLS>, 4>;
  if (params.is_first == 0u) {
    for (var r = 0u; r < 4u; r++) {
      let i = min(row + r, params.queries - 1u);
      top[r] = state[saved + 2u * i];
      total[r] = select(0.0, state[saved + 2u * i + 1u], own.x == 0u);
      for (var c = 0u; c < COLS; c++) {
        var four = vec4<f32>();
        let channel = 4u * (LANES * c + own.x);
        for (var d = channel; d < min(channel + 4u, params.head_size); d++) {
          four[d - channel] = y[y_head + i * params.y_pitch + d];
        }
        sum[r][c] = four;
      }
    }
  }

  var visible = params.first_key + params.keys;
  if (HAS_LIMIT) {
    visible = min(visible, limit[0]);
  }
  if (CAUSAL) {
    visible = min(visible, params.first_query + min(first + QUERIES, params.queries));
  }
  let end = max(visible, params.first_key) - params.first_key;
  // Of the head; not GROUPS, so that drivers for processors leave the loop over it a loop.
  let groups = (params.head_size + 7u) / 8u;
  let q_base = (params.q_offset + place.y * params.q_head_stride) / 8u;
  let k_base = (params.k_offset + kv * params.k_head_stride) / 8u;
  let v_base = (params.v_offset + kv * params.v_head_stride) / 4u;

  for (var j0 = 0u; j0 < end; j0 += KEYS) {
    // Set to zero in words: left to the language, it happens once, not in every turn of the loop (Dawn on Vulkan).
    var score = array<vec4<f32>, 4>();
    for (var g = 0u; g < groups; g += STEP / 8u) {
      // Lines are queries, then keys; neighbouring invocations bring a line's two groups.
      var loaded: array<array<vec4<f32>, 2>, LOADS>;
      for (var i = 0u; i < LOADS; i++) {
        let line = (WORKGROUP * i + index) / 2u;
        let group = g + index % 2u;
        loaded[i] = array<vec4<f32>, 2>(vec4<f32>(), vec4<f32>());
        if (group < groups) {
          if (line < QUERIES) {
            loaded[i] = load_q(q_base + min(first + line, params.queries - 1u) * GROUPS + group);
            loaded[i][0] *= params.scale;
            loaded[i][1] *= params.scale;
          } else if (line < LINES) {
            loaded[i] = load_k(k_base + min(j0 + line - QUERIES, end - 1u) * GROUPS + group);
          }
        }
      }
      workgroupBarrier();
      for (var i = 0u; i < LOADS; i++) {
        let line = (WORKGROUP * i + index) / 2u;
        if (line < LINES) {
          // Each invocation's first key, then each one's second …: they read neighbouring vectors.
          let key = line - QUERIES;
          let at = 2u * (index % 2u) * LINES + select(QUERIES + key % 4u * LANES + key / 4u, line, line < QUERIES);
          tile[at] = loaded[i][0];
          tile[at + LINES] = loaded[i][1];
        }
      }
      workgroupBarrier();
      for (var s = 0u; s < STEP / 4u; s++) {
        let q_at = s * LINES + 4u * own.y;
        let k_at = s * LINES + QUERIES + own.x;
        let k0 = tile[k_at];
        let k1 = tile[k_at + LANES];
        let k2 = tile[k_at + 2u * LANES];
        let k3 = tile[k_at + 3u * LANES];
        for (var r = 0u; r < 4u; r++) {
          let query = tile[q_at + r];
          let before = score[r];
          score[r] = vec4<f32>(
            add_product(before.x, query, k0), add_product(before.y, query, k1),
            add_product(before.z, query, k2), add_product(before.w, query, k3));
        }
      }
    }

    for (var r = 0u; r < 4u; r++) {
      let j = j0 + 4u * own.x + vec4<u32>(0u, 1u, 2u, 3u);
      var hidden = j >= vec4<u32>(end);
      if (CAUSAL) {
        hidden = hidden | (params.first_key + j > vec4<u32>(params.first_query + row + r));
      }
      score[r] = select(score[r], vec4<f32>(LOWEST), hidden);
    }
    weights[index] = vec4<f32>(largest(score[0]), largest(score[1]), largest(score[2]), largest(score[3]));
    workgroupBarrier();
    var highest = top;
    for (var i = 0u; i < LANES; i++) {
      highest = max(highest, weights[own.y * LANES + i]);
    }
    let rescale = exp2(top - highest);
    top = highest;
    total *= rescale;
    for (var r = 0u; r < 4u; r++) {
      // A row that has seen no visible key yet has the maximum LOWEST; its hidden keys must still weigh nothing.
      let weight = select(exp2(score[r] - highest[r]), vec4<f32>(), score[r] == vec4<f32>(LOWEST));
      score[r] = weight;
      total[r] += (weight.x + weight.y) + (weight.z + weight.w);
      for (var c = 0u; c < COLS; c++) {
        sum[r][c] *= rescale[r];
      }
    }

    for (var j = 0u; j < KEYS && j0 + j < end; j += STEP) {
      workgroupBarrier();
      if (own.x / 4u == j / STEP) {
        for (var r = 0u; r < 4u; r++) {
          weights[(4u * own.y + r) * STEP / 4u + own.x % 4u] = score[r];
        }
      }
      for (var i = own.y; i < STEP; i += TEAMS) {
        let v_row = v_base + min(j0 + j + i, end - 1u) * VECTORS;
        for (var c = 0u; c < COLS; c++) {
          let vector = LANES * c + own.x;
          // Vectors beyond the head's are never written to y.
          tile[i * COLS * LANES + vector] = v[v_row + min(vector, VECTORS - 1u)];
        }
      }
      workgroupBarrier();
      for (var i = 0u; i < STEP / 4u; i++) {
        for (var c = 0u; c < COLS; c++) {
          let v_at = (4u * i * COLS + c) * LANES + own.x;
          let v0 = tile[v_at];
          let v1 = tile[v_at + COLS * LANES];
          let v2 = tile[v_at + 2u * COLS * LANES];
          let v3 = tile[v_at + 3u * COLS * LANES];
          for (var r = 0u; r < 4u; r++) {
            let weight = weights[(4u * own.y + r) * STEP / 4u + i];
            sum[r][c] = fma(vec4<f32>(weight.x), v0, sum[r][c]);
            sum[r][c] = fma(vec4<f32>(weight.y), v1, sum[r][c]);
            sum[r][c] = fma(vec4<f32>(weight.z), v2, sum[r][c]);
            sum[r][c] = fma(vec4<f32>(weight.w), v3, sum[r][c]);
          }
        }
      }
    }
  }

  workgroupBarrier();
  weights[index] = total;
  workgroupBarrier();
  total = vec4<f32>();
  for (var i = 0u; i < LANES; i++) {
    total += weights[own.y * LANES + i];
  }
  // The last head writes the row's padding.
  let columns = select(params.head_size, params.y_cols - head * params.head_size, head == params.heads - 1u);
  let normalise = select(vec4<f32>(1.0), 1.0 / total, params.is_last == 1u);
  for (var r = 0u; r < 4u; r++) {
    if (row + r < params.queries) {
      let y_row = y_head + (row + r) * params.y_pitch;
      for (var c = 0u; c < COLS; c++) {
        let four = sum[r][c] * normalise[r];
        let channel = 4u * (LANES * c + own.x);
        for (var d = channel; d < min(channel + 4u, columns); d++) {
          y[y_row + d] = select(0.0, four[d - channel], d < params.head_size);
        }
      }
      for (var d = 4u * LANES * COLS + own.x; d < columns; d += LANES) {
        y[y_row + d] = 0.0;
      }
      if (params.is_last == 0u && own.x == 0u) {
        state[saved + 2u * (row + r)] = top[r];
        state[saved + 2u * (row + r) + 1u] = total[r];
      }
    }
  }
}
