// eight: eight elements one by one, for lanes that broadcast them

alias Eight = array<f32, 8>;

fn eight_floats(low: vec4<f32>, high: vec4<f32>) -> Eight {
  return Eight(low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w);
}

fn eight_halves(word: vec4<u32>) -> Eight {
  let v01 = unpack2x16float(word.x);
  let v23 = unpack2x16float(word.y);
  let v45 = unpack2x16float(word.z);
  let v67 = unpack2x16float(word.w);
  return Eight(v01.x, v01.y, v23.x, v23.y, v45.x, v45.y, v67.x, v67.y);
}
