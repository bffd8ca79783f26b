// a_rows: eight elements of a, which is in f32 or f16
// with: unpack8
//
// Groups of eight elements are counted from where a is bound.

fn load_a(group: u32) -> array<vec4<f32>, 2> {
  if (A_TYPE == 0u) {
    return unpack8(a[2u * group], a[2u * group + 1u], 0u);
  }
  return unpack8(a[group], vec4<u32>(), A_TYPE);
}

// Where a row begins, in groups.
alias Row = u32;

fn row_at(m: u32) -> Row {
  return (params.a_offset + m * params.a_pitch) / 8u;
}
