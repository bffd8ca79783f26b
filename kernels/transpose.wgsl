// transpose: y[c, row + r] = x[r, c]
//
//   x   [rows, cols]  f32, rows of the whole matrix from `row` on
//   y   [cols, ...]   f32, columns of the whole result from `col` on   must not alias x
//
// A workgroup has a square of 8 x 8 elements of y, so that its lanes read whole parts of lines of x.
// Dispatch: (ceil(y_cols / 8), ceil(cols / 8), 1).

// The bound y begins with column `col` of x, and its first element to write is at y_offset. Columns from rows up to
// y_cols are zeros.
struct TransposeParams {
  rows: u32, cols: u32, col: u32, x_offset: u32, x_pitch: u32, y_offset: u32, y_pitch: u32, y_cols: u32,
}

@group(0) @binding(0) var<uniform> params: TransposeParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8) fn transpose(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.y_cols || id.y >= params.cols) {
    return;
  }
  let at = params.x_offset + min(id.x, params.rows - 1u) * params.x_pitch + params.col + id.y;
  y[params.y_offset + id.y * params.y_pitch + id.x] = select(0.0, x[at], id.x < params.rows);
}
