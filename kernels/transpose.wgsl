// transpose: y[c, row + r] = x[r, c]
//
//   x   [rows, cols]  f32, rows of the whole matrix from `row` on
//   y   [cols, ...]   f32, columns of the whole result from `col` on   must not alias x
//
// An 8 x 8 square of y a workgroup: what a lane reads of a line of x, the lanes below read, too.
// Dispatch: (ceil(y_cols / 8), ceil(cols / 8), 1).

struct Params {
  rows: u32,
  cols: u32,
  col: u32, // of x, the first that is a row of the bound y
  x_offset: u32,
  x_pitch: u32,
  y_offset: u32, // of the first row's first column to write
  y_pitch: u32,
  y_cols: u32, // columns to write; those from rows on are zeros
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8)
fn transpose(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.y_cols || id.y >= params.cols) {
    return;
  }
  let at = params.x_offset + min(id.x, params.rows - 1u) * params.x_pitch + params.col + id.y;
  y[params.y_offset + id.y * params.y_pitch + id.x] = select(0.0, x[at], id.x < params.rows);
}
