// matmul_subgroup_panel: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
// with: matmul_call, panel_product
//
// The same function as matmul, for many rows on devices whose subgroup is one SIMD register (CPU drivers): see
// panel_product. A subgroup computes ROWS x (COLS * SUBGROUP_SIZE) sums. Dispatch: (row tiles, column tiles, 1), as for
// matmul_subgroup.

enable subgroups;

@group(0) @binding(0) var<uniform> params: MatmulParams;
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

// The first of the lane's eight elements of a row of a, and whether they lie before the row's end.
struct Cursor { at: u32, is_term: bool }

fn first_row(m: u32, group: u32) -> Cursor {
  return Cursor(params.a_offset + m * params.a_pitch + 8u * group, group < params.groups);
}

// Zeros past the row's end.
fn next_eight(cursor: ptr<function, Cursor>) -> Eight {
  let at = (*cursor).at;
  let is_term = (*cursor).is_term;
  (*cursor).at += params.a_pitch;
  if (A_TYPE == 2u) {
    return eight_halves(select(vec4<u32>(), a[at / 8u], is_term));
  }
  let low = select(vec4<u32>(), a[at / 4u], is_term);
  let high = select(vec4<u32>(), a[at / 4u + 1u], is_term);
  return eight_floats(bitcast<vec4<f32>>(low), bitcast<vec4<f32>>(high));
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn matmul_subgroup_panel(@builtin(workgroup_id) tile: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  multiply_panels(tile.xy, lane, params.rows, params.groups);
}
