// euler_step: latents[i] += step[0] * velocity[i], in place
// with: octets
//
//   latents   [8 * octets]  f32   read and written
//   velocity  [8 * octets]  f32
//   step      [8]           f32   element 0 is the difference of sigmas, negative
//
// Dispatch: an invocation per eight elements, workgroups of 64, folded into x and y.

struct EulerStepParams { octets: u32, latents_offset: u32, velocity_offset: u32, step_offset: u32 }

@group(0) @binding(0) var<uniform> params: EulerStepParams;
@group(0) @binding(1) var<storage, read_write> latents: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> velocity: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: array<f32>;

fn apply(vector: u32) {
  let velocities = velocity[params.velocity_offset / 4u + vector];
  latents[params.latents_offset / 4u + vector] += step[params.step_offset] * velocities;
}

@compute @workgroup_size(64) fn euler_step(own: Invocation) { apply_to_octet(own); }
