// layer_norm_modulate: y[r, c] = (1 + scale[c]) * (x[r, c] - mean) / sqrt(variance + eps) + shift[c], moments of x[r, :]
// with: normed_rows
//
//   x      [rows, cols]  f32
//   scale  [cols]        f32, a range of the modulation
//   shift  [cols]        f32, a range of the modulation
//   y      [rows, cols]  f32, or f16 with Y_F16   must not alias x
//
// The variance is biased and comes from squared deviations in a second pass over the row. LANES invocations share a
// row. ALIGNED: cols is a multiple of 8, the offsets of scale and shift are multiples of 4.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct LayerNormModulateParams {
  rows: u32, cols: u32, pitch: u32,
  x_offset: u32, scale_offset: u32, shift_offset: u32, y_offset: u32, eps: f32,
}

@group(0) @binding(0) var<uniform> params: LayerNormModulateParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> shift: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<u32>>;

override ALIGNED: bool = true;

fn scale_at(c: u32) -> f32 {
  let i = params.scale_offset + min(c, params.cols - 1u);
  return scale[i / 4u][i % 4u];
}

fn shift_at(c: u32) -> f32 {
  let i = params.shift_offset + min(c, params.cols - 1u);
  return shift[i / 4u][i % 4u];
}

// Zero beyond the last column.
fn result4(normed: vec4<f32>, c: u32) -> vec4<f32> {
  if (ALIGNED) {
    return (1.0 + scale[(params.scale_offset + c) / 4u]) * normed + shift[(params.shift_offset + c) / 4u];
  }
  let scales = vec4<f32>(scale_at(c), scale_at(c + 1u), scale_at(c + 2u), scale_at(c + 3u));
  let shifts = vec4<f32>(shift_at(c), shift_at(c + 1u), shift_at(c + 2u), shift_at(c + 3u));
  return within((1.0 + scales) * normed + shifts, c);
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP) fn layer_norm_modulate(own: Invocation) {
  let row = row_within(own, params.rows);
  let begin = x_row_of(row);
  var total = vec4<f32>(0.0);
  for (var o = own.local.x; o < params.pitch / 8u; o += LANES) {
    total += x[begin + 2u * o] + x[begin + 2u * o + 1u];
  }
  let mean = row_sum(total.x + total.y + total.z + total.w, own.local.x, own.local.y) / f32(params.cols);
  let variance = squares_about(mean, row, own) / f32(params.cols);
  write_normed(mean, 1.0 / sqrt(variance + params.eps), row, own);
}
