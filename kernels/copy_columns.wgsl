// copy_columns: y[r, column + c] = x[r, c]
// with: folded_dispatch
//
//   x   [rows, cols]                f32
//   y   [rows, column + cols, ...]  f32   must not alias x
//
// Dispatch: an invocation per row and column to write, workgroups of 64, folded into x and y.

// y_offset is the place of the column's first element. Columns from cols up to y_cols are zeros.
struct CopyColumnsParams { rows: u32, cols: u32, x_offset: u32, x_pitch: u32, y_offset: u32, y_pitch: u32, y_cols: u32 }

@group(0) @binding(0) var<uniform> params: CopyColumnsParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64) fn copy_columns(own: Invocation) {
  let element = invocation_number(own);
  let row = element / params.y_cols;
  let col = element % params.y_cols;
  if (row < params.rows) {
    let at = params.x_offset + row * params.x_pitch + min(col, params.cols - 1u);
    y[params.y_offset + row * params.y_pitch + col] = select(0.0, x[at], col < params.cols);
  }
}
