// narrow8: eight elements as f16, from the words that unpack8 takes
// with: unpack8

// Multiplied with a scale that keeps them in f16's range; elements that are f16 already have none.
fn narrow8(word: vec4<u32>, more: vec4<u32>, kind: u32, scale: f32) -> array<vec4<f16>, 2> {
  if (kind == 2u) {
    return array<vec4<f16>, 2>(bitcast<vec4<f16>>(word.xy), bitcast<vec4<f16>>(word.zw));
  }
  let wide = unpack8(word, more, kind);
  return array<vec4<f16>, 2>(vec4<f16>(wide[0] * scale), vec4<f16>(wide[1] * scale));
}
