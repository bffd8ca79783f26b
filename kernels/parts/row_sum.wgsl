// row_sum: sums over the lanes of a row
// with: row_reduction

alias Partial = f32;

fn joined(a: f32, b: f32) -> f32 {
  return a + b;
}

fn row_sum(value: f32, lane: u32, row: u32) -> f32 {
  return over_row(value, lane, row);
}
