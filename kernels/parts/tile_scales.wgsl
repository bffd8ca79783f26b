// tile_scales: scales of a tile's rows and columns, which keep them in f16's range, and their reciprocals
//
// They are those of row_scale; operands that are f16 already have ones. The kernel gives a_scale_of and u_scale_of: the
// scales of rows of a and of up.

var<workgroup> a_scales: array<vec2<f32>, TILE_M>;
var<workgroup> w_scales: array<vec2<f32>, TILE_N>;

fn load_scales(tile: vec2<u32>, index: u32, rows: u32) {
  for (var i = index; i < TILE_M; i += WORKGROUP) {
    let m = tile.x * TILE_M + i;
    a_scales[i] = vec2<f32>(1.0);
    if (A_TYPE != 2u && m < rows) {
      a_scales[i] = a_scale_of(m);
    }
  }
  for (var i = index; i < TILE_N; i += WORKGROUP) {
    let n = tile.y * results_of(TILE_N) + result_of(i, TILE_N);
    w_scales[i] = vec2<f32>(1.0);
    if (WEIGHT_TYPE != 2u && n < params.cols) {
      w_scales[i] = w_scale[2u * (params.w_scale_offset + n)].xy;
      if (is_up(i, TILE_N)) {
        w_scales[i] = u_scale_of(n);
      }
    }
  }
}

// Takes the scales out of a sum of scaled products.
fn unscaled(sum: f32, row: u32, column: u32) -> f32 {
  return sum * a_scales[row].y * w_scales[column].y;
}
