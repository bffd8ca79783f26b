// attention_subgroup: y[i, h] = sum_j softmax_j(scale * q[h, i] . k[h / heads_per_kv, j]) * v[h / heads_per_kv, j]
//
//   q      [heads, tokens, GROUPS * 8]      f32 or f16, zero-padded head size
//   k      [kv heads, tokens, GROUPS * 8]   f32 or f16
//   v      [kv heads, tokens, GROUPS * 8]   f32
//   limit  [1]                              u32   HAS_LIMIT only: keys at and beyond it are invisible
//   y      [tokens, heads * head_size]      f32   column block h holds head h; must not alias q, k, v
//   state  [heads, queries, 2]              f32   maximum and sum of rows whose keys are bound in several pieces
//
// The same function as attention, for devices whose subgroup is one SIMD register (CPU drivers): a lane owns QUERIES
// query rows; it loads one element of a key or value, and broadcasts replace the loads of the other lanes.
// Streaming softmax over KEYS keys at a time, with exponents of two. CAUSAL: key j is visible to query i if j <= i.
// Dispatch: (query tiles, heads, 1).

enable subgroups;

// tunables
const QK_TYPE: u32 = 0u;
const GROUPS: u32 = 4u;
const QUERIES: u32 = 2u;
const KEYS: u32 = 2u;
const SUBGROUP_SIZE: u32 = 8u;

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
@group(0) @binding(1) var<storage, read> q: array<u32>;
@group(0) @binding(2) var<storage, read> k: array<u32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> limit: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> state: array<f32>;

const LOWEST: f32 = -3.4e38;

fn q_at(element: u32) -> f32 {
  if (QK_TYPE == 2u) {
    let pair = unpack2x16float(q[element >> 1u]);
    return select(pair.x, pair.y, (element & 1u) == 1u);
  }
  return bitcast<f32>(q[element]);
}

fn k_at(element: u32) -> f32 {
  if (QK_TYPE == 2u) {
    let pair = unpack2x16float(k[element >> 1u]);
    return select(pair.x, pair.y, (element & 1u) == 1u);
  }
  return bitcast<f32>(k[element]);
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn attention_subgroup(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let head = params.first_head + tile.y;
  let kv = head / params.heads_per_kv - params.first_kv_head;
  let first = tile.x * QUERIES * SUBGROUP_SIZE;
  var row: array<u32, QUERIES>;
  // One array dimension per loop: the driver unrolls a loop for certain only if it runs over a whole dimension.
  var query: array<array<array<f32, 8>, GROUPS>, QUERIES>;
  var sum: array<array<array<f32, 8>, GROUPS>, QUERIES>;
  var top: array<f32, QUERIES>;
  var total: array<f32, QUERIES>;
  for (var i = 0u; i < QUERIES; i++) {
    row[i] = min(first + i * SUBGROUP_SIZE + lane, params.queries - 1u);
    let at = params.q_offset + tile.y * params.q_head_stride + row[i] * GROUPS * 8u;
    for (var g = 0u; g < GROUPS; g++) {
      for (var c = 0u; c < 8u; c++) {
        query[i][g][c] = q_at(at + 8u * g + c) * params.scale;
        sum[i][g][c] = 0.0;
      }
    }
    top[i] = LOWEST;
    total[i] = 0.0;
    if (params.is_first == 0u) {
      let begin = params.y_offset + row[i] * params.y_pitch + head * params.head_size;
      for (var g = 0u; g < GROUPS; g++) {
        for (var c = 0u; c < 8u; c++) {
          if (8u * g + c < params.head_size) {
            sum[i][g][c] = y[begin + 8u * g + c];
          }
        }
      }
      let saved = params.state_offset + head * params.state_head_stride + 2u * row[i];
      top[i] = state[saved];
      total[i] = state[saved + 1u];
    }
  }

  var visible = params.first_key + params.keys;
  if (HAS_LIMIT) {
    visible = min(visible, limit[0]);
  }
  if (CAUSAL) {
    visible = min(visible, params.first_query + min(first + QUERIES * SUBGROUP_SIZE, params.queries));
  }
  let end = max(visible, params.first_key) - params.first_key;
  let part = lane & 7u;
  let k_base = params.k_offset + kv * params.k_head_stride + part;
  let v_base = params.v_offset + kv * params.v_head_stride + part;

  for (var j0 = 0u; j0 < end; j0 += KEYS) {
    // Set to zero in words: left to the language, it happens once, not in every turn of the loop (Dawn on Vulkan).
    var score = array<array<f32, KEYS>, QUERIES>();
    for (var j = 0u; j < KEYS; j++) {
      let at = k_base + min(j0 + j, end - 1u) * GROUPS * 8u;
      for (var g = 0u; g < GROUPS; g++) {
        let low = k_at(at + 8u * g);
        var high = low;
        if (SUBGROUP_SIZE < 8u) {
          high = k_at(at + 8u * g + 4u);
        }
        let k0 = subgroupBroadcast(low, 0u);
        let k1 = subgroupBroadcast(low, 1u);
        let k2 = subgroupBroadcast(low, 2u);
        let k3 = subgroupBroadcast(low, 3u);
        let k4 = subgroupBroadcast(high, 4u % SUBGROUP_SIZE);
        let k5 = subgroupBroadcast(high, 5u % SUBGROUP_SIZE);
        let k6 = subgroupBroadcast(high, 6u % SUBGROUP_SIZE);
        let k7 = subgroupBroadcast(high, 7u % SUBGROUP_SIZE);
        for (var i = 0u; i < QUERIES; i++) {
          var s = score[i][j];
          s = fma(k0, query[i][g][0], s);
          s = fma(k1, query[i][g][1], s);
          s = fma(k2, query[i][g][2], s);
          s = fma(k3, query[i][g][3], s);
          s = fma(k4, query[i][g][4], s);
          s = fma(k5, query[i][g][5], s);
          s = fma(k6, query[i][g][6], s);
          score[i][j] = fma(k7, query[i][g][7], s);
        }
      }
    }
    for (var i = 0u; i < QUERIES; i++) {
      var highest = top[i];
      for (var j = 0u; j < KEYS; j++) {
        var hidden = j0 + j >= end;
        if (CAUSAL) {
          hidden = hidden || params.first_key + j0 + j > params.first_query + row[i];
        }
        score[i][j] = select(score[i][j], LOWEST, hidden);
        highest = max(highest, score[i][j]);
      }
      let rescale = exp2(top[i] - highest);
      top[i] = highest;
      total[i] *= rescale;
      for (var j = 0u; j < KEYS; j++) {
        // A row that has seen no visible key yet has the maximum LOWEST; its hidden keys must still weigh nothing.
        let weight = select(exp2(score[i][j] - highest), 0.0, score[i][j] == LOWEST);
        score[i][j] = weight;
        total[i] += weight;
      }
      for (var g = 0u; g < GROUPS; g++) {
        for (var c = 0u; c < 8u; c++) {
          sum[i][g][c] *= rescale;
        }
      }
    }
    // Channels outside, keys inside: a channel's sums stay in registers while the keys pass.
    for (var g = 0u; g < GROUPS; g++) {
      for (var j = 0u; j < KEYS; j++) {
        let at = v_base + min(j0 + j, end - 1u) * GROUPS * 8u + 8u * g;
        let low = v[at];
        var high = low;
        if (SUBGROUP_SIZE < 8u) {
          high = v[at + 4u];
        }
        let v0 = subgroupBroadcast(low, 0u);
        let v1 = subgroupBroadcast(low, 1u);
        let v2 = subgroupBroadcast(low, 2u);
        let v3 = subgroupBroadcast(low, 3u);
        let v4 = subgroupBroadcast(high, 4u % SUBGROUP_SIZE);
        let v5 = subgroupBroadcast(high, 5u % SUBGROUP_SIZE);
        let v6 = subgroupBroadcast(high, 6u % SUBGROUP_SIZE);
        let v7 = subgroupBroadcast(high, 7u % SUBGROUP_SIZE);
        for (var i = 0u; i < QUERIES; i++) {
          let p = score[i][j];
          sum[i][g][0] = fma(p, v0, sum[i][g][0]);
          sum[i][g][1] = fma(p, v1, sum[i][g][1]);
          sum[i][g][2] = fma(p, v2, sum[i][g][2]);
          sum[i][g][3] = fma(p, v3, sum[i][g][3]);
          sum[i][g][4] = fma(p, v4, sum[i][g][4]);
          sum[i][g][5] = fma(p, v5, sum[i][g][5]);
          sum[i][g][6] = fma(p, v6, sum[i][g][6]);
          sum[i][g][7] = fma(p, v7, sum[i][g][7]);
        }
      }
    }
  }

  for (var i = 0u; i < QUERIES; i++) {
    if (first + i * SUBGROUP_SIZE + lane < params.queries) {
      let to = params.y_offset + row[i] * params.y_pitch + head * params.head_size;
      let normalise = select(1.0, 1.0 / total[i], params.is_last == 1u);
      for (var g = 0u; g < GROUPS; g++) {
        for (var c = 0u; c < 8u; c++) {
          let d = 8u * g + c;
          // The last head writes the row's padding: its own padding is zeros.
          let is_padding = head == params.heads - 1u && head * params.head_size + d < params.y_cols;
          if (d < params.head_size || is_padding) {
            y[to + d] = sum[i][g][c] * normalise;
          }
        }
      }
      if (params.is_last == 0u) {
        let saved = params.state_offset + head * params.state_head_stride + 2u * row[i];
        state[saved] = top[i];
        state[saved + 1u] = total[i];
      }
    }
  }
}
