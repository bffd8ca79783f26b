// attention: y[i, h] = sum_j softmax_j(scale * q[h, i] . k[h / heads_per_kv, j]) * v[h / heads_per_kv, j]
// with: attention_call, unpack8
//
//   q      [heads, tokens, GROUPS * 8]      f32 or f16, zero-padded head size
//   k      [kv heads, tokens, GROUPS * 8]   f32 or f16
//   v      [kv heads, tokens, GROUPS * 8]   f32
//   limit  [1]                              u32   HAS_LIMIT only: keys at and beyond it are invisible; at least 1
//   y      [tokens, heads * head_size]      f32   column block h holds head h; must not alias q, k, v
//   state  [heads, queries, 2]              f32   maximum and sum of rows whose keys are bound in several pieces
//
// A workgroup of KEYS / 4 x QUERIES / 4 invocations passes over KEYS keys at a time with a streaming softmax, whose
// exponents are those of two. First an invocation scores 4 queries against 4 keys, while q and k pass through workgroup
// memory, 16 channels at a time. Then it adds up SLICES x 4 channels of its 4 queries, while the weights of the keys
// and their values pass through it, 16 keys at a time. CAUSAL: key j is visible to query i if j <= i. Dispatch: (query
// tiles, heads, 1).

// tunables
const QUERIES: u32 = 64u;
const KEYS: u32 = 64u;

@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> limit: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> state: array<f32>;

const LANES: u32 = KEYS / 4u; // invocations that share 4 queries
const TEAMS: u32 = QUERIES / 4u;
const WORKGROUP: u32 = LANES * TEAMS;
const LINES: u32 = QUERIES + KEYS;
const VECTORS: u32 = GROUPS * 2u;
const SLICES: u32 = (VECTORS + LANES - 1u) / LANES; // of four channels each
const STEP: u32 = 16u; // channels of q and k, and keys of v, in workgroup memory at a time
// How many groups of eight channels an invocation brings at a time.
const LOADS: u32 = (LINES * STEP / 8u + WORKGROUP - 1u) / WORKGROUP;

// Vectors of four channels: [channel / 4][row] of q and k, [key][vector] of v.
var<workgroup> tile: array<vec4<f32>, max(LINES * STEP / 4u, STEP * SLICES * LANES)>;
// [query][key / 4], vectors of the weights of 4 keys; at other times the maxima or totals of each invocation's 4
// queries.
var<workgroup> weights: array<vec4<f32>, QUERIES * STEP / 4u>;

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

// s + a . b in four fused operations; with dot there would be a fifth.
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
  let first = place.x * QUERIES;
  let row = first + 4u * own.y; // the first of this invocation's queries
  // An element for each of the 4 queries.
  var top = vec4<f32>(LOWEST);
  var total = vec4<f32>(); // of this invocation's keys, until the end
  var sum: array<array<vec4<f32>, SLICES>, 4>;
  if (params.is_first == 0u) {
    for (var r = 0u; r < 4u; r++) {
      let i = min(row + r, params.queries - 1u);
      let kept = kept_state(head, i);
      top[r] = kept.x;
      total[r] = select(0.0, kept.y, own.x == 0u);
      for (var c = 0u; c < SLICES; c++) {
        sum[r][c] = four_of_y(y_row_of(head, i), 4u * (LANES * c + own.x));
      }
    }
  }

  let end = visible_keys(first, QUERIES);
  let q_base = (params.q_offset + place.y * params.q_head_stride) / 8u;
  let k_base = keys_of(head) / 8u;
  let v_base = values_of(head) / 4u;

  for (var j0 = 0u; j0 < end; j0 += KEYS) {
    // Explicit zeros: without them the variable would be zero in the first turn of the loop only (Dawn on Vulkan).
    var score = array<vec4<f32>, 4>();
    for (var g = 0u; g < groups_of_head(); g += STEP / 8u) {
      // Lines are queries, then keys; neighbouring invocations bring a line's two groups.
      var loaded: array<array<vec4<f32>, 2>, LOADS>;
      for (var i = 0u; i < LOADS; i++) {
        let line = (WORKGROUP * i + index) / 2u;
        let group = g + index % 2u;
        loaded[i] = array<vec4<f32>, 2>(vec4<f32>(), vec4<f32>());
        if (group < groups_of_head()) {
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
          // The first keys of all invocations, then the second ones …, so that neighbours read neighbouring vectors.
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
      score[r] = select(score[r], vec4<f32>(LOWEST), j >= vec4<u32>(hidden_from(row + r, end)));
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
      // Hidden keys weigh nothing, also while the maximum itself is LOWEST because no key was visible yet.
      let weight = select(exp2(score[r] - highest[r]), vec4<f32>(), score[r] == vec4<f32>(LOWEST));
      score[r] = weight;
      total[r] += (weight.x + weight.y) + (weight.z + weight.w);
      for (var c = 0u; c < SLICES; c++) {
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
        for (var c = 0u; c < SLICES; c++) {
          let vector = LANES * c + own.x;
          // Vectors beyond the head's are never written to y.
          tile[i * SLICES * LANES + vector] = v[v_row + min(vector, VECTORS - 1u)];
        }
      }
      workgroupBarrier();
      for (var i = 0u; i < STEP / 4u; i++) {
        for (var c = 0u; c < SLICES; c++) {
          let v_at = (4u * i * SLICES + c) * LANES + own.x;
          let v0 = tile[v_at];
          let v1 = tile[v_at + SLICES * LANES];
          let v2 = tile[v_at + 2u * SLICES * LANES];
          let v3 = tile[v_at + 3u * SLICES * LANES];
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
  let columns = columns_of(head);
  let normalise = select(vec4<f32>(1.0), 1.0 / total, params.is_last == 1u);
  for (var r = 0u; r < 4u; r++) {
    if (row + r < params.queries) {
      let y_row = y_row_of(head, row + r);
      for (var c = 0u; c < SLICES; c++) {
        write_four(y_row, 4u * (LANES * c + own.x), columns, sum[r][c] * normalise[r]);
      }
      for (var d = 4u * LANES * SLICES + own.x; d < columns; d += LANES) {
        y[y_row + d] = 0.0;
      }
      if (own.x == 0u) {
        keep_state(head, row + r, top[r], total[r]);
      }
    }
  }
}
