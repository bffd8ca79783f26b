// store_octet: writes eight values of y, in f32 or, with Y_F16, in f16

override Y_F16: bool = false;

// They begin at element 8 * octet of y.
fn store_octet(octet: u32, a: vec4<f32>, b: vec4<f32>) {
  if (Y_F16) {
    y[octet] = pack_f16(a, b);
  } else {
    y[2u * octet] = bitcast<vec4<u32>>(a);
    y[2u * octet + 1u] = bitcast<vec4<u32>>(b);
  }
}

// Eight values as f16, value 2i in the low half of word i, clamped to what f16 holds.
fn pack_f16(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
  let most = vec4<f32>(65504.0);
  let lo = clamp(a, -most, most);
  let hi = clamp(b, -most, most);
  return vec4<u32>(pack2x16float(lo.xy), pack2x16float(lo.zw), pack2x16float(hi.xy), pack2x16float(hi.zw));
}
