// bench_copy: y[i] = x[i]
// with: folded_dispatch
//
//   x  [4 * vectors]  f32
//   y  [4 * vectors]  f32   must not alias x
//
// No kernel that reads and writes memory can move more bytes per second. Neighbouring invocations take neighbouring
// vectors. Dispatch: an invocation per vector of four, workgroups of 64, folded into x and y.

struct BenchCopyParams { vectors: u32 }

@group(0) @binding(0) var<uniform> params: BenchCopyParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64) fn bench_copy(own: Invocation) {
  let i = invocation_number(own);
  if (i < params.vectors) {
    y[i] = x[i];
  }
}
