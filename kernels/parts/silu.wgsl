// silu: v * sigmoid(v)

// The exponent is bounded because no infinity may arise, and e^87 is as good as one.
fn silu1(v: f32) -> f32 {
  return v / (1.0 + exp(-max(v, -87.0)));
}

fn silu4(v: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(silu1(v.x), silu1(v.y), silu1(v.z), silu1(v.w));
}
