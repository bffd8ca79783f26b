// guidance: velocity[i] = negative[i] + step[1] * (velocity[i] - negative[i]), in place
//
//   velocity  [8 * octets]  f32   read and written
//   negative  [8 * octets]  f32   the velocity for the negative prompt
//   step      [8]           f32   element 1 is the guidance
//
// Dispatch: an invocation per eight elements, workgroups of 64, folded into x and y.

struct Params {
  octets: u32,
  velocity_offset: u32,
  negative_offset: u32,
  step_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> velocity: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> negative: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: array<f32>;

@compute @workgroup_size(64)
fn guidance(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let octet = (workgroup.y * workgroups.x + workgroup.x) * 64u + lane;
  if (octet >= params.octets) {
    return;
  }
  let scale = step[params.step_offset + 1u];
  let at = params.velocity_offset / 4u + 2u * octet;
  let n_at = params.negative_offset / 4u + 2u * octet;
  let n0 = negative[n_at];
  let n1 = negative[n_at + 1u];
  velocity[at] = n0 + scale * (velocity[at] - n0);
  velocity[at + 1u] = n1 + scale * (velocity[at + 1u] - n1);
}
