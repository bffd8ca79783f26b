// euler_step: latents[i] += step[0] * velocity[i], in place
//
//   latents   [8 * octets]  f32   read and written
//   velocity  [8 * octets]  f32
//   step      [8]           f32   element 0 is the difference of sigmas, negative
//
// Dispatch: an invocation per eight elements, workgroups of 64, folded into x and y.

struct Params {
  octets: u32,
  latents_offset: u32,
  velocity_offset: u32,
  step_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> latents: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> velocity: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: array<f32>;

@compute @workgroup_size(64)
fn euler_step(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let octet = (workgroup.y * workgroups.x + workgroup.x) * 64u + lane;
  if (octet >= params.octets) {
    return;
  }
  let difference = step[params.step_offset];
  let at = params.latents_offset / 4u + 2u * octet;
  let v_at = params.velocity_offset / 4u + 2u * octet;
  latents[at] += difference * velocity[v_at];
  latents[at + 1u] += difference * velocity[v_at + 1u];
}
