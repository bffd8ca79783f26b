// matmul: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
// with: matmul_call, f32_tile, a_rows
//
//   a        [rows, groups * 8]  f32 or f16
//   weight   [cols, groups * 8]  f32, bf16 or f16, rows zero-padded to a multiple of 8
//   up       as weight           SILU_GATE only: the rows that are multiplied with the gated ones
//   bias     [cols]              f32   HAS_BIAS only
//   gate     [cols]              f32   HAS_GATE only
//   y        [rows, cols]        f32   must not alias a; read only if ACCUMULATE
//
// epilogue(s) = s [+ bias[n]]; SILU_GATE: silu(s) * s_up; HAS_GATE: gate[n] * s; ACCUMULATE: y[m, n] + s.
// A workgroup computes a tile of 16 ROWS x 16 COLS sums: see tile_product. With SILU_GATE two of them make a result.
// Dispatch: (row tiles, column tiles, 1).

@group(0) @binding(0) var<uniform> params: MatmulParams;
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn row_group(row: Row, group: u32, line: u32) -> Group {
  return load_a(row + group);
}

@compute @workgroup_size(16, 16) fn matmul(own: Invocation) {
  multiply_tiles(own.tile.xy, own.index, params.rows, params.groups);
}
