// row_scale: y[r] = (s, 1 / s) with s = 2^(14 - floor(log2(max_k |x[r, k]|)))
//
//   x  [rows, groups * 8]  f32 or bf16, rows zero-padded to a multiple of 8
//   y  [rows, 2]           f32   must not alias x; the pitch is 8
//
// What brings a row near the top of f16's range before it is rounded to f16: exact, for it is a power of two, nothing
// overflows, and only what is 2^28 times as small as the row's largest value loses precision. A row that holds a NaN or
// an infinity gets (1, NaN), so that results show it; the bits are compared, because compilers may assume neither exists.
// LANES invocations (a power of two) share a row: one on CPU devices, few where rows are short.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

// tunables
const X_TYPE: u32 = 1u;

override LANES: u32 = 64u;
override ROWS_PER_WORKGROUP: u32 = 1u;

struct Params {
  rows: u32,
  groups: u32, // of 8 elements
  x_offset: u32, // groups
  x_pitch: u32, // groups
  y_offset: u32, // rows
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;

// Of 16 bytes.
const GROUP_WORDS: u32 = select(1u, 2u, X_TYPE == 0u);

var<workgroup> largest: array<u32, LANES * ROWS_PER_WORKGROUP>;

// The largest magnitude of the elements of 16 bytes, as the bits of an f32.
fn largest_of(word: vec4<u32>) -> u32 {
  var most = word & vec4<u32>(0x7fffffffu);
  if (X_TYPE == 1u) {
    most = max((word << vec4<u32>(16u)) & vec4<u32>(0x7fff0000u), word & vec4<u32>(0x7fff0000u));
  }
  return max(max(most.x, most.y), max(most.z, most.w));
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP)
fn row_scale(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let lane = local.x;
  let row = (workgroup.y * workgroups.x + workgroup.x) * ROWS_PER_WORKGROUP + local.y;
  var most = 0u;
  if (row < params.rows) {
    let first = GROUP_WORDS * (params.x_offset + row * params.x_pitch);
    for (var i = lane; i < GROUP_WORDS * params.groups; i += LANES) {
      most = max(most, largest_of(x[first + i]));
    }
  }
  if (LANES > 1u) {
    let at = local.y * LANES + lane;
    largest[at] = most;
    workgroupBarrier();
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
      if (lane < step) {
        largest[at] = max(largest[at], largest[at + step]);
      }
      workgroupBarrier();
    }
    most = largest[at];
  }
  if (lane == 0u && row < params.rows) {
    let exponent = most >> 23u;
    // Both s and 1 / s stay normal numbers.
    let scale = clamp(268 - i32(exponent), 1, 253);
    var pair = vec2<u32>(u32(scale) << 23u, u32(254 - scale) << 23u);
    if (exponent == 255u) {
      pair = vec2<u32>(0x3f800000u, 0x7fc00000u);
    }
    let at = 2u * (params.y_offset + row);
    y[at] = vec4<u32>(pair, 0u, 0u);
    y[at + 1u] = vec4<u32>();
  }
}
