// column_sum: sums over columns of x, read four at a time where ALIGNED

override ALIGNED: bool = true;

// Adds up what `number` of `step` invocations has of `count` columns that begin at element `at`: their distances from
// `mean`, or the squares of those.
fn column_sum(at: u32, count: u32, number: u32, step: u32, mean: f32, squared: bool) -> f32 {
  if (ALIGNED) {
    var sum = vec4<f32>(0.0);
    for (var c = 4u * number; c < count; c += 4u * step) {
      let values = x[(at + c) / 4u] - mean;
      sum += select(values, values * values, squared);
    }
    return sum.x + sum.y + sum.z + sum.w;
  }
  var sum = 0.0;
  for (var c = number; c < count; c += step) {
    let value = x[(at + c) / 4u][(at + c) % 4u] - mean;
    sum += select(value, value * value, squared);
  }
  return sum;
}
