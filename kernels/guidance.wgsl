// guidance: velocity[i] = negative[i] + step[1] * (velocity[i] - negative[i]), in place
// with: octets
//
//   velocity  [8 * octets]  f32   read and written
//   negative  [8 * octets]  f32   the velocity for the negative prompt
//   step      [8]           f32   element 1 is the guidance
//
// Dispatch: an invocation per eight elements, workgroups of 64, folded into x and y.

struct GuidanceParams { octets: u32, velocity_offset: u32, negative_offset: u32, step_offset: u32 }

@group(0) @binding(0) var<uniform> params: GuidanceParams;
@group(0) @binding(1) var<storage, read_write> velocity: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> negative: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: array<f32>;

fn apply(vector: u32) {
  let at = params.velocity_offset / 4u + vector;
  let without = negative[params.negative_offset / 4u + vector];
  velocity[at] = without + step[params.step_offset + 1u] * (velocity[at] - without);
}

@compute @workgroup_size(64) fn guidance(own: Invocation) { apply_to_octet(own); }
