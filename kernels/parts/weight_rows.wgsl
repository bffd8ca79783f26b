// weight_rows: eight elements of a weight, which is in f32, bf16 or f16
// with: unpack8
//
// Groups of eight elements are counted from the first row on. The kernel gives load_up.

fn load_weight(group: u32) -> array<vec4<f32>, 2> {
  let at = params.weight_offset + group;
  if (WEIGHT_TYPE == 0u) {
    return unpack8(weight[2u * at], weight[2u * at + 1u], 0u);
  }
  return unpack8(weight[at], vec4<u32>(), WEIGHT_TYPE);
}

// Eight elements of the weight, or of up.
fn load_column(group: u32, is_up: bool) -> array<vec4<f32>, 2> {
  if (is_up) {
    return load_up(group);
  }
  return load_weight(group);
}
