// product: what all kernels share that compute sums of products with a weight
// with: product_epilogue
//
// An invocation adds up ROWS x COLS sums; on matrix units a subgroup adds up as many matrices of sums. The kernel gives
// the flags of product_epilogue.

// tunables
const WEIGHT_TYPE: u32 = 1u; // 0 is f32, 1 bf16, 2 f16
const ROWS: u32 = 4u;
const COLS: u32 = 4u;

override ACCUMULATE: bool = false;

struct Invocation {
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
}

// With SILU_GATE a tile of `width` columns has its gate columns first, then the up columns that belong to them. So it
// has this many results:
fn results_of(width: u32) -> u32 {
  return select(width, width / 2u, SILU_GATE);
}

fn is_up(column: u32, width: u32) -> bool {
  return SILU_GATE && column >= width / 2u;
}

// The result that a column belongs to.
fn result_of(column: u32, width: u32) -> u32 {
  return select(column, column - width / 2u, is_up(column, width));
}

// Where the rows of the weight begin that belong to COLS columns, whose results are `stride` apart. Rows have `groups`
// groups of eight elements.
fn rows_of_columns(n_first: u32, stride: u32, groups: u32) -> array<u32, COLS> {
  var rows: array<u32, COLS>;
  for (var c = 0u; c < COLS; c++) {
    rows[c] = min(n_first + result_of(c, COLS) * stride, params.cols - 1u) * groups;
  }
  return rows;
}

// Writes y[m, n]: zeros in columns from params.cols on, nothing from params.y_cols on.
fn store_result(m: u32, n: u32, sum: f32, up_sum: f32, terms: Terms) {
  if (n < params.y_cols) {
    let value = epilogue(sum, up_sum, terms);
    y[params.y_offset + m * params.y_pitch + n] = select(0.0, value, n < params.cols);
  }
}
