// normed_rows: rows of y from normalised rows of x, eight columns at a time
// with: row_lanes, row_sum, store_octet
//
// Rows have params.cols columns and padding up to params.pitch. The kernel gives ALIGNED, and result4: what becomes of
// four normalised columns.

// Where a row of x begins, in vectors.
fn x_row_of(row: u32) -> u32 {
  return params.x_offset / 4u + row * (params.pitch / 8u) * 2u;
}

// The sum of a row's squared distances from `mean`.
fn squares_about(mean: f32, row: u32, own: Invocation) -> f32 {
  let x_row = x_row_of(row);
  var squares = vec4<f32>(0.0);
  for (var o = own.local.x; o < params.pitch / 8u; o += LANES) {
    let a = within(x[x_row + 2u * o] - mean, 8u * o);
    let b = within(x[x_row + 2u * o + 1u] - mean, 8u * o + 4u);
    squares += a * a + b * b;
  }
  return row_sum(squares.x + squares.y + squares.z + squares.w, own.local.x, own.local.y);
}

// Four columns from c on, with zeros past the last one.
fn within(values: vec4<f32>, c: u32) -> vec4<f32> {
  if (ALIGNED) {
    return values;
  }
  return select(vec4<f32>(0.0), values, vec4<u32>(c, c + 1u, c + 2u, c + 3u) < vec4<u32>(params.cols));
}

// Writes the row of y, unless it is past the end.
fn write_normed(mean: f32, inverse: f32, row: u32, own: Invocation) {
  if (row_of(own) >= params.rows) {
    return;
  }
  let x_row = x_row_of(row);
  let y_row = params.y_offset / 8u + row * (params.pitch / 8u);
  for (var o = own.local.x; o < params.pitch / 8u; o += LANES) {
    let a = (x[x_row + 2u * o] - mean) * inverse;
    let b = (x[x_row + 2u * o + 1u] - mean) * inverse;
    store_octet(y_row + o, result4(a, 8u * o), result4(b, 8u * o + 4u));
  }
}
