// matmul_subgroup_matrix: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
// with: matmul_call, matmul_scales, matrix_product
//
// The same function as matmul_f16, on matrix units: see matrix_product.
// Dispatch: (row tiles, column tiles, 1).

enable f16, subgroups, subgroup_size_control, chromium_experimental_subgroup_matrix;

diagnostic(off, chromium.subgroup_matrix_uniformity);

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

struct Cursor { k: u32 }

fn start(m_first: u32, index: u32) -> Cursor {
  return Cursor(0u);
}

// There is nothing after the last group.
fn next_row(cursor: ptr<function, Cursor>, m_first: u32, index: u32) {}

fn is_row(cursor: ptr<function, Cursor>, i: u32, m: u32) -> bool {
  return m < params.rows;
}

fn a_word(cursor: ptr<function, Cursor>, i: u32, m: u32, k: u32) -> vec4<u32> {
  return a[(params.a_offset + m * params.a_pitch + k) / A_WIDTH];
}

fn weight_word(cursor: ptr<function, Cursor>, n: u32, k: u32, is_up: bool) -> vec4<u32> {
  let in_row = 8u * n * params.groups + k;
  if (is_up) {
    return up[(8u * params.up_offset + in_row) / W_WIDTH];
  }
  return weight[(8u * params.weight_offset + in_row) / W_WIDTH];
}

@compute @workgroup_size(WORKGROUP) @subgroup_size(SUBGROUP_SIZE)
fn matmul_subgroup_matrix(own: Invocation, @builtin(subgroup_id) subgroup: u32) {
  let steps = (8u * params.groups + STEP - 1u) / STEP;
  multiply_matrices(own.tile.xy, own.index, subgroup, params.rows, steps);
}
