// bench_copy: y[i] = x[i]
//
//   x  [4 * vectors]  f32
//   y  [4 * vectors]  f32   must not alias x
//
// What it moves per second is the ceiling of everything that is bound by memory. Neighbouring invocations take
// neighbouring vectors. Dispatch: an invocation per vector of four, workgroups of 64, folded into x and y.

struct Params {
  vectors: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn bench_copy(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup.y * workgroups.x + workgroup.x) * 64u + lane;
  if (i < params.vectors) {
    y[i] = x[i];
  }
}
