// matmul_f16: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
// with: matmul_call, tile_product, a_rows, matmul_scales, narrow8
//
//   a_scale  [rows, 2]  f32   of row_scale, for an a in f32: row r is multiplied with [r, 0] and its sums with [r, 1]
//   w_scale  [cols, 2]  f32   of row_scale, for a weight in f32 or bf16
//   u_scale  [cols, 2]  f32   of row_scale, for up in f32 or bf16
//
// The same function as matmul with operands rounded to f16, for GPUs that have f16 but no matrix units: only half as
// much passes through workgroup memory. Products and sums are f32.
// Dispatch: (row tiles, column tiles, 1).

enable f16;

@group(0) @binding(0) var<uniform> params: MatmulParams;
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read> a_scale: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> w_scale: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> u_scale: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> y: array<f32>;

alias Element = f16;
const STEP: u32 = 32u;
const WORKGROUP: u32 = 256u;

fn row_group(row: Row, group: u32, line: u32) -> Group {
  let at = row + group;
  let scale = a_scales[line].x;
  if (A_TYPE == 0u) {
    return narrow8(a[2u * at], a[2u * at + 1u], 0u, scale);
  }
  return narrow8(a[at], vec4<u32>(), A_TYPE, scale);
}

fn column_group(group: u32, is_up: bool, column: u32) -> Group {
  let scale = w_scales[column].x;
  if (is_up) {
    return narrow_up(params.up_offset + group, scale);
  }
  return narrow_weight(params.weight_offset + group, scale);
}

fn narrow_weight(group: u32, scale: f32) -> Group {
  if (WEIGHT_TYPE == 0u) {
    return narrow8(weight[2u * group], weight[2u * group + 1u], 0u, scale);
  }
  return narrow8(weight[group], vec4<u32>(), WEIGHT_TYPE, scale);
}

fn narrow_up(group: u32, scale: f32) -> Group {
  if (WEIGHT_TYPE == 0u) {
    return narrow8(up[2u * group], up[2u * group + 1u], 0u, scale);
  }
  return narrow8(up[group], vec4<u32>(), WEIGHT_TYPE, scale);
}

@compute @workgroup_size(16, 16) fn matmul_f16(own: Invocation) {
  load_scales(own.tile.xy, own.index, params.rows);
  workgroupBarrier();
  multiply_tiles(own.tile.xy, own.index, params.rows, params.groups);
}
