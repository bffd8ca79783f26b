// attention: y[i, h] = sum_j softmax_j(scale * q[h, i] . k[h / heads_per_kv, j]) * v[h / heads_per_kv, j]
//
//   q      [heads, tokens, GROUPS * 8]      f32 or f16, zero-padded head size
//   k      [kv heads, tokens, GROUPS * 8]   f32 or f16
//   v      [kv heads, tokens, GROUPS * 8]   f32
//   limit  [1]                              u32   HAS_LIMIT only: keys at and beyond it are invisible
//   y      [tokens, heads * head_size]      f32   column block h holds head h; must not alias q, k, v
//   state  [heads, queries, 2]              f32   maximum and sum of rows whose keys are bound in several pieces
//
// An invocation owns one query row and keeps its q and y in registers; a workgroup of 64 shares KEYS keys and values
// through workgroup memory. Streaming softmax over KEYS keys at a time, with exponents of two.
// CAUSAL: key j is visible to query i if j <= i. Dispatch: (query tiles of 64, heads, 1).

// tunables
const QK_TYPE: u32 = 0u;
const GROUPS: u32 = 4u;
const KEYS: u32 = 16u;

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
const LANES: u32 = 64u;
const VECTORS: u32 = GROUPS * 2u;

var<workgroup> k_tile: array<vec4<f32>, KEYS * VECTORS>;
var<workgroup> v_tile: array<vec4<f32>, KEYS * VECTORS>;

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

@compute @workgroup_size(LANES)
fn attention(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let head = params.first_head + tile.y;
  let kv = head / params.heads_per_kv - params.first_kv_head;
  let first = tile.x * LANES;
  let row = min(first + lane, params.queries - 1u);
  let y_row = params.y_offset + row * params.y_pitch + head * params.head_size;
  let saved = params.state_offset + head * params.state_head_stride + 2u * row;
  var query: array<vec4<f32>, VECTORS>;
  var sum: array<vec4<f32>, VECTORS>;
  var top = LOWEST;
  var total = 0.0;
  for (var g = 0u; g < GROUPS; g++) {
    let loaded = load_q((params.q_offset + tile.y * params.q_head_stride) / 8u + row * GROUPS + g);
    query[2u * g] = loaded[0] * params.scale;
    query[2u * g + 1u] = loaded[1] * params.scale;
  }
  if (params.is_first == 0u) {
    for (var d = 0u; d < params.head_size; d++) {
      sum[d / 4u][d % 4u] = y[y_row + d];
    }
    top = state[saved];
    total = state[saved + 1u];
  }

  var visible = params.first_key + params.keys;
  if (HAS_LIMIT) {
    visible = min(visible, limit[0]);
  }
  if (CAUSAL) {
    visible = min(visible, params.first_query + min(first + LANES, params.queries));
  }
  let end = max(visible, params.first_key) - params.first_key;
  let k_base = (params.k_offset + kv * params.k_head_stride) / 8u;
  let v_base = (params.v_offset + kv * params.v_head_stride) / 4u;

  for (var j0 = 0u; j0 < end; j0 += KEYS) {
    workgroupBarrier();
    for (var i = lane; i < KEYS * GROUPS; i += LANES) {
      let j = min(j0 + i / GROUPS, end - 1u);
      let loaded = load_k(k_base + j * GROUPS + i % GROUPS);
      k_tile[2u * i] = loaded[0];
      k_tile[2u * i + 1u] = loaded[1];
    }
    for (var i = lane; i < KEYS * VECTORS; i += LANES) {
      let j = min(j0 + i / VECTORS, end - 1u);
      v_tile[i] = v[v_base + j * VECTORS + i % VECTORS];
    }
    workgroupBarrier();
    var score: array<f32, KEYS>;
    var highest = top;
    for (var j = 0u; j < KEYS; j++) {
      var s = 0.0;
      for (var d = 0u; d < VECTORS; d++) {
        s += dot(query[d], k_tile[j * VECTORS + d]);
      }
      var hidden = j0 + j >= end;
      if (CAUSAL) {
        hidden = hidden || params.first_key + j0 + j > params.first_query + row;
      }
      score[j] = select(s, LOWEST, hidden);
      highest = max(highest, score[j]);
    }
    let rescale = exp2(top - highest);
    top = highest;
    total *= rescale;
    for (var d = 0u; d < VECTORS; d++) {
      sum[d] *= rescale;
    }
    for (var j = 0u; j < KEYS; j++) {
      // A row that has seen no visible key yet has the maximum LOWEST; its hidden keys must still weigh nothing.
      let weight = select(exp2(score[j] - highest), 0.0, score[j] == LOWEST);
      total += weight;
      for (var d = 0u; d < VECTORS; d++) {
        sum[d] += weight * v_tile[j * VECTORS + d];
      }
    }
  }

  if (first + lane < params.queries) {
    let normalise = select(1.0, 1.0 / total, params.is_last == 1u);
    for (var d = 0u; d < GROUPS * 8u; d++) {
      // The last head writes the row's padding: its own padding is zeros.
      let column = head * params.head_size + d;
      if (d < params.head_size || (head == params.heads - 1u && column < params.y_cols)) {
        y[y_row + d] = sum[d / 4u][d % 4u] * normalise;
      }
    }
    if (params.is_last == 0u) {
      state[saved] = top;
      state[saved + 1u] = total;
    }
  }
}
