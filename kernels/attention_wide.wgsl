// attention_wide: y[i] = sum_j softmax_j(scale * q[i] . k[j]) * v[j], one head of any size up to VECTORS * 256
//
//   q      [queries, channels]   f32
//   k      [keys, channels]      f32
//   v      [keys, channels]      f32   padding channels are zeros
//   y      [queries, channels]   f32   must not alias q, k, v
//   state  [queries, 2]          f32   maximum and sum of rows whose keys are bound in several pieces
//
// For the VAE, whose single head is too wide for one invocation's registers: a workgroup of 64 owns ROWS queries, an
// invocation VECTORS * 4 of their channels. Scores pass through workgroup memory; streaming softmax with exponents of
// two. Dispatch: (query tiles, 1, 1).

// tunables
const VECTORS: u32 = 2u;

struct Params {
  queries: u32,
  keys: u32, // bound in this dispatch
  is_first: u32, // 0 continues from state and y
  is_last: u32, // 0 leaves state and unnormalised y
  vectors: u32, // of 4 channels, padding included
  scale: f32, // 1 / sqrt(channels), times log2(e)
  q_offset: u32, // elements, multiples of 4
  q_pitch: u32,
  k_offset: u32,
  k_pitch: u32,
  v_offset: u32,
  v_pitch: u32,
  y_offset: u32,
  y_pitch: u32,
  state_offset: u32,
  state_pitch: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> state: array<f32>;

const LOWEST: f32 = -3.4e38;
const LANES: u32 = 64u;
const ROWS: u32 = 8u;
const KEYS: u32 = 32u;
const ROWS_PER_LANE: u32 = ROWS * KEYS / LANES;

var<workgroup> score: array<array<f32, KEYS>, ROWS>;
var<workgroup> top: array<f32, ROWS>;
var<workgroup> total: array<f32, ROWS>;
var<workgroup> rescale: array<f32, ROWS>;

@compute @workgroup_size(LANES)
fn attention_wide(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let first = tile.x * ROWS;
  var sum: array<array<vec4<f32>, VECTORS>, ROWS>;
  if (lane < ROWS) {
    top[lane] = LOWEST;
    total[lane] = 0.0;
  }
  if (params.is_first == 0u) {
    for (var r = 0u; r < ROWS; r++) {
      let row = min(first + r, params.queries - 1u);
      for (var i = 0u; i < VECTORS; i++) {
        let vector = i * LANES + lane;
        if (vector < params.vectors) {
          sum[r][i] = y[(params.y_offset + row * params.y_pitch) / 4u + vector];
        }
      }
    }
    if (lane < ROWS) {
      let saved = params.state_offset + min(first + lane, params.queries - 1u) * params.state_pitch;
      top[lane] = state[saved];
      total[lane] = state[saved + 1u];
    }
  }

  let key = lane % KEYS;
  let first_row = lane / KEYS * ROWS_PER_LANE;
  for (var j0 = 0u; j0 < params.keys; j0 += KEYS) {
    let k_row = (params.k_offset + min(j0 + key, params.keys - 1u) * params.k_pitch) / 4u;
    // Set to zero in words: left to the language, it happens once, not in every turn of the loop (Dawn on Vulkan).
    var s = array<f32, ROWS_PER_LANE>();
    for (var d = 0u; d < params.vectors; d++) {
      let from_k = k[k_row + d];
      for (var r = 0u; r < ROWS_PER_LANE; r++) {
        let row = min(first + first_row + r, params.queries - 1u);
        s[r] += dot(from_k, q[(params.q_offset + row * params.q_pitch) / 4u + d]);
      }
    }
    for (var r = 0u; r < ROWS_PER_LANE; r++) {
      score[first_row + r][key] = select(LOWEST, s[r] * params.scale, j0 + key < params.keys);
    }
    workgroupBarrier();
    if (lane < ROWS) {
      var highest = top[lane];
      for (var j = 0u; j < KEYS; j++) {
        highest = max(highest, score[lane][j]);
      }
      var added = 0.0;
      for (var j = 0u; j < KEYS; j++) {
        let weight = exp2(score[lane][j] - highest);
        score[lane][j] = weight;
        added += weight;
      }
      rescale[lane] = exp2(top[lane] - highest);
      total[lane] = total[lane] * rescale[lane] + added;
      top[lane] = highest;
    }
    workgroupBarrier();
    for (var i = 0u; i < VECTORS; i++) {
      let vector = i * LANES + lane;
      if (vector < params.vectors) {
        for (var r = 0u; r < ROWS; r++) {
          sum[r][i] *= rescale[r];
        }
        for (var j = 0u; j < min(KEYS, params.keys - j0); j++) {
          let value = v[(params.v_offset + (j0 + j) * params.v_pitch) / 4u + vector];
          for (var r = 0u; r < ROWS; r++) {
            sum[r][i] += score[r][j] * value;
          }
        }
      }
    }
    workgroupBarrier();
  }

  for (var r = 0u; r < ROWS; r++) {
    if (first + r < params.queries) {
      let normalise = select(1.0, 1.0 / total[r], params.is_last == 1u);
      for (var i = 0u; i < VECTORS; i++) {
        let vector = i * LANES + lane;
        if (vector < params.vectors) {
          y[(params.y_offset + (first + r) * params.y_pitch) / 4u + vector] = sum[r][i] * normalise;
        }
      }
    }
  }
  if (params.is_last == 0u && lane < ROWS && first + lane < params.queries) {
    let saved = params.state_offset + (first + lane) * params.state_pitch;
    state[saved] = top[lane];
    state[saved + 1u] = total[lane];
  }
}
