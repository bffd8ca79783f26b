// bench_fma: y[i] = x_0 + x_1 + x_2, each x_j = fma(x_j, scale, offset) steps times from x_j = i % 64 + (4j, 4j + 1, 4j + 2, 4j + 3)
//
//   y  [4 * invocations]  f32, the vector of invocation i
//
// It does nothing but multiplications and additions in registers, so no kernel can compute faster. Three vectors are
// twelve chains, which are enough to hide the latency of an addition and few enough for 16 registers. A turn of the
// loop has eight of the formula's steps, so params.steps is an eighth of them. Dispatch: workgroups of 64, (n, 1, 1).

struct BenchFmaParams { steps: u32, scale: f32, offset: f32 }

@group(0) @binding(0) var<uniform> params: BenchFmaParams;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64) fn bench_fma(@builtin(global_invocation_id) id: vec3<u32>) {
  let scale = vec4<f32>(params.scale);
  let offset = vec4<f32>(params.offset);
  var x0 = vec4<f32>(0.0, 1.0, 2.0, 3.0) + f32(id.x % 64u);
  var x1 = x0 + 4.0;
  var x2 = x0 + 8.0;
  for (var i = 0u; i < params.steps; i++) {
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
    x0 = fma(x0, scale, offset);
    x1 = fma(x1, scale, offset);
    x2 = fma(x2, scale, offset);
  }
  y[id.x] = x0 + x1 + x2;
}
