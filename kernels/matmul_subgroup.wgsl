// matmul_subgroup: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
// with: matmul_call, lane_columns
//
// The same function as matmul, for devices whose subgroup is one SIMD register (CPU drivers). A lane loads one element
// of a row and gets the others by broadcasts, because loads are gathers there. It needs no workgroup memory. A subgroup
// computes ROWS x (COLS * SUBGROUP_SIZE) sums. Dispatch: (row tiles, column tiles, 1). Rows vary fastest, so that the
// weights of a column tile stay in cache.

enable subgroups;

@group(0) @binding(0) var<uniform> params: MatmulParams;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn a_at(element: u32) -> f32 {
  if (A_TYPE == 2u) {
    let pair = unpack2x16float(a[element >> 1u]);
    return select(pair.x, pair.y, (element & 1u) == 1u);
  }
  return bitcast<f32>(a[element]);
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn matmul_subgroup(@builtin(workgroup_id) tile: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let m_first = tile.x * ROWS;
  let n_first = first_result(tile.xy, lane);
  let w_row = rows_of_columns(n_first, SUBGROUP_SIZE, params.groups);
  var a_row: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    a_row[r] = params.a_offset + min(m_first + r, params.rows - 1u) * params.a_pitch + (lane & 7u);
  }

  var sum: array<Columns, ROWS>;
  for (var k = 0u; k < params.groups; k++) {
    var w = load_columns(w_row, k);
    for (var r = 0u; r < ROWS; r++) {
      let low = a_at(a_row[r] + 8u * k);
      var high = low;
      if (SUBGROUP_SIZE < 8u) {
        high = a_at(a_row[r] + 8u * k + 4u);
      }
      let a0 = subgroupBroadcast(low, 0u);
      let a1 = subgroupBroadcast(low, 1u);
      let a2 = subgroupBroadcast(low, 2u);
      let a3 = subgroupBroadcast(low, 3u);
      let a4 = subgroupBroadcast(high, 4u % SUBGROUP_SIZE);
      let a5 = subgroupBroadcast(high, 5u % SUBGROUP_SIZE);
      let a6 = subgroupBroadcast(high, 6u % SUBGROUP_SIZE);
      let a7 = subgroupBroadcast(high, 7u % SUBGROUP_SIZE);
      for (var c = 0u; c < COLS; c++) {
        var s = sum[r][c];
        s = fma(a0, w[c][0].x, s);
        s = fma(a1, w[c][0].y, s);
        s = fma(a2, w[c][0].z, s);
        s = fma(a3, w[c][0].w, s);
        s = fma(a4, w[c][1].x, s);
        s = fma(a5, w[c][1].y, s);
        s = fma(a6, w[c][1].z, s);
        sum[r][c] = fma(a7, w[c][1].w, s);
      }
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    if (m_first + r < params.rows) {
      store_columns(m_first + r, n_first, sum[r]);
    }
  }
}
