// silu: y[i] = x[i] / (1 + exp(-x[i]))
// with: octets, silu
//
//   x  [8 * octets]  f32
//   y  [8 * octets]  f32   must not alias x
//
// Dispatch: an invocation per eight elements, workgroups of 64, folded into x and y.

struct SiluParams { octets: u32, x_offset: u32, y_offset: u32 }

@group(0) @binding(0) var<uniform> params: SiluParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn apply(vector: u32) {
  y[params.y_offset / 4u + vector] = silu4(x[params.x_offset / 4u + vector]);
}

@compute @workgroup_size(64) fn silu(own: Invocation) { apply_to_octet(own); }
