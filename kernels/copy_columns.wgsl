// copy_columns: y[r, column + c] = x[r, c]
//
//   x   [rows, cols]                f32
//   y   [rows, column + cols, ...]  f32   must not alias x
//
// One invocation per row and column. Dispatch: rows * y_cols / 64 workgroups folded into (min(n, 65535), ceil(n / 65535), 1).

struct Params {
  rows: u32,
  cols: u32,
  x_offset: u32,
  x_pitch: u32,
  y_offset: u32, // of the column's first element
  y_pitch: u32,
  y_cols: u32, // columns to write; those from cols on are zeros
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn copy_columns(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
) {
  let index = id.y * count.x * 64u + id.x;
  let row = index / params.y_cols;
  let col = index % params.y_cols;
  if (row < params.rows) {
    let at = params.x_offset + row * params.x_pitch + min(col, params.cols - 1u);
    y[params.y_offset + row * params.y_pitch + col] = select(0.0, x[at], col < params.cols);
  }
}
