// silu: y[i] = x[i] / (1 + exp(-x[i]))
//
//   x  [8 * octets]  f32
//   y  [8 * octets]  f32   must not alias x
//
// Dispatch: an invocation per eight elements, workgroups of 64, folded into x and y.

struct Params {
  octets: u32,
  x_offset: u32,
  y_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

// v * sigmoid(v); the exponent is bounded because no infinity may arise, and e^87 is as good as one.
fn silu4(v: vec4<f32>) -> vec4<f32> {
  return v / (1.0 + exp(-max(v, vec4<f32>(-87.0))));
}

@compute @workgroup_size(64)
fn silu(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let octet = (workgroup.y * workgroups.x + workgroup.x) * 64u + lane;
  if (octet >= params.octets) {
    return;
  }
  let x_at = params.x_offset / 4u + 2u * octet;
  let y_at = params.y_offset / 4u + 2u * octet;
  y[y_at] = silu4(x[x_at]);
  y[y_at + 1u] = silu4(x[x_at + 1u]);
}
