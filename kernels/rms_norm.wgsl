// rms_norm: y[r, c] = x[r, c] / sqrt(mean_c(x[r, :]^2) + eps) * weight[c]
// with: normed_rows
//
//   x       [rows, cols]  f32
//   weight  [cols]        f32, zero from cols up to a multiple of 8
//   y       [rows, cols]  f32, or f16 with Y_F16   must not alias x
//
// LANES invocations share a row; the sum of squares is kept in f32. x's padding is zero, so it adds nothing and stays
// zero.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct RmsNormParams { rows: u32, cols: u32, pitch: u32, x_offset: u32, y_offset: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: RmsNormParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<u32>>;

const ALIGNED = true; // padding needs no care, because it is zero

fn result4(normed: vec4<f32>, c: u32) -> vec4<f32> {
  return normed * weight[c / 4u];
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP) fn rms_norm(own: Invocation) {
  let row = row_within(own, params.rows);
  let sum = squares_about(0.0, row, own);
  write_normed(0.0, 1.0 / sqrt(sum / f32(params.cols) + params.eps), row, own);
}
