// health_combine: result = all findings of health taken together
// with: row_lanes, findings
//
//   part    [parts, 8]  u32   not finite, least, greatest, how many, and four zeros
//   result  [8]         u32   the same; must not alias part
//
// There is one workgroup, of LANES invocations; each has every LANES-th part.
// Dispatch: (1, 1, 1).

struct HealthCombineParams { parts: u32, part_offset: u32, result_offset: u32 }

@group(0) @binding(0) var<uniform> params: HealthCombineParams;
@group(0) @binding(1) var<storage, read> part: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<u32>>;

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP) fn health_combine(own: Invocation) {
  var found = NOTHING;
  for (var k = own.local.x; k < params.parts; k += LANES) {
    found = joined(found, part[params.part_offset / 4u + 2u * k]);
  }
  let all = over_row(found, own.local.x, own.local.y);
  if (own.local.x == 0u && own.local.y == 0u) {
    result[params.result_offset / 4u] = all;
    result[params.result_offset / 4u + 1u] = vec4<u32>(0u);
  }
}
