// matmul_subgroup_panel: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
//
//   a        [rows, groups * 8]  f32 or f16
//   weight   [cols, groups * 8]  f32, bf16 or f16, rows zero-padded to a multiple of 8
//   up       as weight           SILU_GATE only: the rows that are multiplied with the gated ones
//   bias     [cols]              f32   HAS_BIAS only
//   gate     [cols]              f32   HAS_GATE only
//   y        [rows, cols]        f32   must not alias a; read only if ACCUMULATE
//
// The same function as matmul, for many rows on devices whose subgroup is one SIMD register (CPU drivers). A load costs
// them some ten instructions a lane, so a panel of the weight is loaded and widened once and kept in private memory, and
// all rows of the tile pass by it. A lane loads eight elements of a row, and broadcasts hand them round.
// epilogue(s) = s [+ bias[n]]; SILU_GATE: silu(s) * s_up; HAS_GATE: gate[n] * s; ACCUMULATE: y[m, n] + s.
// One subgroup computes ROWS x (COLS * SUBGROUP_SIZE). Dispatch: (row tiles, column tiles, 1); rows vary fastest, so that
// the weights of a column tile stay in cache.

enable subgroups;

// tunables
const A_TYPE: u32 = 0u;
const WEIGHT_TYPE: u32 = 1u;
const ROWS: u32 = 128u;
const COLS: u32 = 8u;
const SUBGROUP_SIZE: u32 = 8u;

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

// With SILU_GATE the second half of the column accumulators holds the up projection.
const HALF: u32 = COLS / 2u;

// Terms of a sum in a panel: eight a lane.
const DEPTH: u32 = 8u * SUBGROUP_SIZE;

alias Panel = array<array<f32, COLS>, DEPTH>;

// Eight elements of a row of a; zeros past its end.
fn eight_of_a(row: u32, group: u32) -> array<f32, 8> {
  let at = row + 8u * group;
  if (A_TYPE == 2u) {
    let word = select(vec4<u32>(), a[at / 8u], group < params.groups);
    let v01 = unpack2x16float(word.x);
    let v23 = unpack2x16float(word.y);
    let v45 = unpack2x16float(word.z);
    let v67 = unpack2x16float(word.w);
    return array<f32, 8>(v01.x, v01.y, v23.x, v23.y, v45.x, v45.y, v67.x, v67.y);
  }
  let low = bitcast<vec4<f32>>(select(vec4<u32>(), a[at / 4u], group < params.groups));
  let high = bitcast<vec4<f32>>(select(vec4<u32>(), a[at / 4u + 1u], group < params.groups));
  return array<f32, 8>(low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w);
}

// Adds the terms of eight k, from `k` on.
fn add_eight(s: ptr<function, array<f32, COLS>>, panel: ptr<function, Panel>, k: u32, v: array<f32, 8>) {
  for (var c = 0u; c < COLS; c++) {
    var t = (*s)[c];
    t = fma(v[0], (*panel)[k][c], t);
    t = fma(v[1], (*panel)[k + 1u][c], t);
    t = fma(v[2], (*panel)[k + 2u][c], t);
    t = fma(v[3], (*panel)[k + 3u][c], t);
    t = fma(v[4], (*panel)[k + 4u][c], t);
    t = fma(v[5], (*panel)[k + 5u][c], t);
    t = fma(v[6], (*panel)[k + 6u][c], t);
    (*s)[c] = fma(v[7], (*panel)[k + 7u][c], t);
  }
}

// Adds the terms of a whole panel; `v` are this lane's eight elements of the row. A lane to broadcast from has to be
// written as a constant.
fn add_panel(s: ptr<function, array<f32, COLS>>, panel: ptr<function, Panel>, v: array<f32, 8>) {
  add_eight(s, panel, 0u, array<f32, 8>(
    subgroupBroadcast(v[0], 0u), subgroupBroadcast(v[1], 0u), subgroupBroadcast(v[2], 0u), subgroupBroadcast(v[3], 0u),
    subgroupBroadcast(v[4], 0u), subgroupBroadcast(v[5], 0u), subgroupBroadcast(v[6], 0u), subgroupBroadcast(v[7], 0u)));
  add_eight(s, panel, 8u, array<f32, 8>(
    subgroupBroadcast(v[0], 1u), subgroupBroadcast(v[1], 1u), subgroupBroadcast(v[2], 1u), subgroupBroadcast(v[3], 1u),
    subgroupBroadcast(v[4], 1u), subgroupBroadcast(v[5], 1u), subgroupBroadcast(v[6], 1u), subgroupBroadcast(v[7], 1u)));
  add_eight(s, panel, 16u, array<f32, 8>(
    subgroupBroadcast(v[0], 2u), subgroupBroadcast(v[1], 2u), subgroupBroadcast(v[2], 2u), subgroupBroadcast(v[3], 2u),
    subgroupBroadcast(v[4], 2u), subgroupBroadcast(v[5], 2u), subgroupBroadcast(v[6], 2u), subgroupBroadcast(v[7], 2u)));
  add_eight(s, panel, 24u, array<f32, 8>(
    subgroupBroadcast(v[0], 3u), subgroupBroadcast(v[1], 3u), subgroupBroadcast(v[2], 3u), subgroupBroadcast(v[3], 3u),
    subgroupBroadcast(v[4], 3u), subgroupBroadcast(v[5], 3u), subgroupBroadcast(v[6], 3u), subgroupBroadcast(v[7], 3u)));
  if (SUBGROUP_SIZE > 4u) {
    add_eight(s, panel, 32u, array<f32, 8>(
      subgroupBroadcast(v[0], 4u), subgroupBroadcast(v[1], 4u), subgroupBroadcast(v[2], 4u), subgroupBroadcast(v[3], 4u),
      subgroupBroadcast(v[4], 4u), subgroupBroadcast(v[5], 4u), subgroupBroadcast(v[6], 4u), subgroupBroadcast(v[7], 4u)));
    add_eight(s, panel, 40u, array<f32, 8>(
      subgroupBroadcast(v[0], 5u), subgroupBroadcast(v[1], 5u), subgroupBroadcast(v[2], 5u), subgroupBroadcast(v[3], 5u),
      subgroupBroadcast(v[4], 5u), subgroupBroadcast(v[5], 5u), subgroupBroadcast(v[6], 5u), subgroupBroadcast(v[7], 5u)));
    add_eight(s, panel, 48u, array<f32, 8>(
      subgroupBroadcast(v[0], 6u), subgroupBroadcast(v[1], 6u), subgroupBroadcast(v[2], 6u), subgroupBroadcast(v[3], 6u),
      subgroupBroadcast(v[4], 6u), subgroupBroadcast(v[5], 6u), subgroupBroadcast(v[6], 6u), subgroupBroadcast(v[7], 6u)));
    add_eight(s, panel, 56u, array<f32, 8>(
      subgroupBroadcast(v[0], 7u), subgroupBroadcast(v[1], 7u), subgroupBroadcast(v[2], 7u), subgroupBroadcast(v[3], 7u),
      subgroupBroadcast(v[4], 7u), subgroupBroadcast(v[5], 7u), subgroupBroadcast(v[6], 7u), subgroupBroadcast(v[7], 7u)));
  }
  if (SUBGROUP_SIZE > 8u) {
    add_eight(s, panel, 64u, array<f32, 8>(
      subgroupBroadcast(v[0], 8u), subgroupBroadcast(v[1], 8u), subgroupBroadcast(v[2], 8u), subgroupBroadcast(v[3], 8u),
      subgroupBroadcast(v[4], 8u), subgroupBroadcast(v[5], 8u), subgroupBroadcast(v[6], 8u), subgroupBroadcast(v[7], 8u)));
    add_eight(s, panel, 72u, array<f32, 8>(
      subgroupBroadcast(v[0], 9u), subgroupBroadcast(v[1], 9u), subgroupBroadcast(v[2], 9u), subgroupBroadcast(v[3], 9u),
      subgroupBroadcast(v[4], 9u), subgroupBroadcast(v[5], 9u), subgroupBroadcast(v[6], 9u), subgroupBroadcast(v[7], 9u)));
    add_eight(s, panel, 80u, array<f32, 8>(
      subgroupBroadcast(v[0], 10u), subgroupBroadcast(v[1], 10u), subgroupBroadcast(v[2], 10u), subgroupBroadcast(v[3], 10u),
      subgroupBroadcast(v[4], 10u), subgroupBroadcast(v[5], 10u), subgroupBroadcast(v[6], 10u), subgroupBroadcast(v[7], 10u)));
    add_eight(s, panel, 88u, array<f32, 8>(
      subgroupBroadcast(v[0], 11u), subgroupBroadcast(v[1], 11u), subgroupBroadcast(v[2], 11u), subgroupBroadcast(v[3], 11u),
      subgroupBroadcast(v[4], 11u), subgroupBroadcast(v[5], 11u), subgroupBroadcast(v[6], 11u), subgroupBroadcast(v[7], 11u)));
    add_eight(s, panel, 96u, array<f32, 8>(
      subgroupBroadcast(v[0], 12u), subgroupBroadcast(v[1], 12u), subgroupBroadcast(v[2], 12u), subgroupBroadcast(v[3], 12u),
      subgroupBroadcast(v[4], 12u), subgroupBroadcast(v[5], 12u), subgroupBroadcast(v[6], 12u), subgroupBroadcast(v[7], 12u)));
    add_eight(s, panel, 104u, array<f32, 8>(
      subgroupBroadcast(v[0], 13u), subgroupBroadcast(v[1], 13u), subgroupBroadcast(v[2], 13u), subgroupBroadcast(v[3], 13u),
      subgroupBroadcast(v[4], 13u), subgroupBroadcast(v[5], 13u), subgroupBroadcast(v[6], 13u), subgroupBroadcast(v[7], 13u)));
    add_eight(s, panel, 112u, array<f32, 8>(
      subgroupBroadcast(v[0], 14u), subgroupBroadcast(v[1], 14u), subgroupBroadcast(v[2], 14u), subgroupBroadcast(v[3], 14u),
      subgroupBroadcast(v[4], 14u), subgroupBroadcast(v[5], 14u), subgroupBroadcast(v[6], 14u), subgroupBroadcast(v[7], 14u)));
    add_eight(s, panel, 120u, array<f32, 8>(
      subgroupBroadcast(v[0], 15u), subgroupBroadcast(v[1], 15u), subgroupBroadcast(v[2], 15u), subgroupBroadcast(v[3], 15u),
      subgroupBroadcast(v[4], 15u), subgroupBroadcast(v[5], 15u), subgroupBroadcast(v[6], 15u), subgroupBroadcast(v[7], 15u)));
  }
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn matmul_subgroup_panel(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let m0 = tile.x * ROWS;
  let rows = min(ROWS, params.rows - m0);
  let tile_cols = select(COLS, HALF, SILU_GATE);
  let n0 = tile.y * tile_cols * SUBGROUP_SIZE + lane;
  var w_row: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) {
    let n = n0 + select(c, c % HALF, SILU_GATE) * SUBGROUP_SIZE;
    w_row[c] = min(n, params.cols - 1u) * params.groups;
  }

  // Row r's sums lie in slot r + 1 while they are not in `s`. They are put there when the next row begins: right after
  // the terms, the driver would move the additions behind each store's branches and keep every product in memory.
  var sum: array<array<f32, COLS>, ROWS + 1u>;
  var s: array<f32, COLS>;
  var panel: Panel;
  for (var g0 = 0u; g0 < params.groups; g0 += SUBGROUP_SIZE) {
    // What a shorter last panel leaves of the one before is multiplied with zeros.
    for (var g = 0u; g < min(SUBGROUP_SIZE, params.groups - g0); g++) {
      for (var c = 0u; c < COLS; c++) {
        var w: array<vec4<f32>, 2>;
        if (SILU_GATE && c >= HALF) {
          w = load_up(params.up_offset + w_row[c] + g0 + g);
        } else {
          w = load_weight(params.weight_offset + w_row[c] + g0 + g);
        }
        panel[8u * g][c] = w[0].x;
        panel[8u * g + 1u][c] = w[0].y;
        panel[8u * g + 2u][c] = w[0].z;
        panel[8u * g + 3u][c] = w[0].w;
        panel[8u * g + 4u][c] = w[1].x;
        panel[8u * g + 5u][c] = w[1].y;
        panel[8u * g + 6u][c] = w[1].z;
        panel[8u * g + 7u][c] = w[1].w;
      }
    }
    for (var r = 0u; r < rows; r++) {
      let v = eight_of_a(params.a_offset + (m0 + r) * params.a_pitch, g0 + lane);
      for (var c = 0u; c < COLS; c++) {
        sum[r][c] = s[c];
        s[c] = sum[r + 1u][c];
      }
      add_panel(&s, &panel, v);
    }
    for (var c = 0u; c < COLS; c++) {
      sum[rows][c] = s[c];
    }
  }

  for (var r = 0u; r < rows; r++) {
    for (var c = 0u; c < COLS; c++) {
      let n = n0 + c * SUBGROUP_SIZE;
      if (c < tile_cols && n < params.y_cols) {
        let at = params.y_offset + (m0 + r) * params.y_pitch + n;
        var value = 0.0;
        if (n < params.cols) {
          value = sum[r + 1u][c];
          if (HAS_BIAS) {
            value += bias[params.bias_offset + n];
          }
          if (SILU_GATE) {
            value = value / (1.0 + exp(-max(value, -87.0))) * sum[r + 1u][(c + HALF) % COLS];
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
