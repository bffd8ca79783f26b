// matmul_scales: tile_scales for products
// with: tile_scales

fn a_scale_of(m: u32) -> vec2<f32> {
  return a_scale[2u * (params.a_scale_offset + m)].xy;
}

fn u_scale_of(n: u32) -> vec2<f32> {
  return u_scale[2u * (params.u_scale_offset + n)].xy;
}
