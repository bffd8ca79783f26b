// health_combine: result = all findings of health taken together
//
//   part    [parts, 8]  u32   not finite, least, greatest, how many, and four zeros
//   result  [8]         u32   the same; must not alias part
//
// One workgroup. LANES (a power of two) invocations take every LANES-th part; one lane runs no barrier.
// Dispatch: (1, 1, 1).

struct Params {
  parts: u32,
  part_offset: u32,
  result_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> part: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<u32>>;

override LANES: u32 = 64u;
override ROWS_PER_WORKGROUP: u32 = 1u;

var<workgroup> partial: array<vec4<u32>, LANES * ROWS_PER_WORKGROUP>;

const NOTHING = vec4<u32>(0u, 0xffffffffu, 0u, 0u);

// Two findings taken together: counts add up, the least and the greatest remain.
fn joined(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
  return vec4<u32>(a.x + b.x, min(a.y, b.y), max(a.z, b.z), a.w + b.w);
}

// The findings of the lanes of a row taken together, for all of them; every invocation of the workgroup must come here.
fn row_joined(value: vec4<u32>, lane: u32, row: u32) -> vec4<u32> {
  if (LANES == 1u) {
    return value;
  }
  let at = row * LANES + lane;
  partial[at] = value;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) {
      partial[at] = joined(partial[at], partial[at + step]);
    }
    workgroupBarrier();
  }
  return partial[row * LANES];
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP)
fn health_combine(@builtin(local_invocation_id) local: vec3<u32>) {
  var found = NOTHING;
  for (var k = local.x; k < params.parts; k += LANES) {
    found = joined(found, part[params.part_offset / 4u + 2u * k]);
  }
  let all = row_joined(found, local.x, local.y);
  if (local.x == 0u && local.y == 0u) {
    result[params.result_offset / 4u] = all;
    result[params.result_offset / 4u + 1u] = vec4<u32>(0u);
  }
}
