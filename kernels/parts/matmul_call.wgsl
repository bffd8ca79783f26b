// matmul_call: what every kernel of matmul is called with
// with: product, weight_rows

// tunables
const A_TYPE: u32 = 0u; // 0 is f32, 2 f16

override HAS_BIAS: bool = false;
override HAS_GATE: bool = false;
override SILU_GATE: bool = false;

struct MatmulParams {
  rows: u32, cols: u32, groups: u32, // of 8 elements, in a row of the weight
  a_offset: u32, a_pitch: u32, // elements
  weight_offset: u32, up_offset: u32, // groups
  bias_offset: u32, gate_offset: u32,
  y_offset: u32, y_pitch: u32, y_cols: u32, // columns from cols up to y_cols are zeros
  a_scale_offset: u32, w_scale_offset: u32, u_scale_offset: u32, // rows; only where operands are rounded to f16
}

fn gate_of(n: u32) -> f32 {
  return gate[params.gate_offset + n];
}

// Eight elements of up, which is stored like the weight.
fn load_up(group: u32) -> array<vec4<f32>, 2> {
  let at = params.up_offset + group;
  if (WEIGHT_TYPE == 0u) {
    return unpack8(up[2u * at], up[2u * at + 1u], 0u);
  }
  return unpack8(up[at], vec4<u32>(), WEIGHT_TYPE);
}

// Group `k` of each column's row; `rows` says where they begin.
fn load_columns(rows: array<u32, COLS>, k: u32) -> array<array<vec4<f32>, 2>, COLS> {
  var begin = rows;
  var loaded: array<array<vec4<f32>, 2>, COLS>;
  for (var c = 0u; c < COLS; c++) {
    loaded[c] = load_column(begin[c] + k, is_up(c, COLS));
  }
  return loaded;
}
