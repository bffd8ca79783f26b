// health: part[k] = (how many are not finite, the least, the greatest, how many) of the k-th span of x's elements
// with: row_lanes, findings
//
//   x     [rows, cols]   f32, read as bits, in rows of 8 * row_octets elements; padding is left out
//   part  [parts, 8]     u32   four words and four zeros; must not alias x
//
// WGSL compilers may assume that NaN does not exist, so nothing here is a float. A value is not finite if all its
// exponent bits are set, and the integers ordered(bits) are ordered like the numbers. Only finite values count for the
// least and the greatest. LANES invocations share a span of x.
// Dispatch: ceil(parts / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct HealthParams {
  octets: u32, // of eight elements, in all rows
  row_octets: u32, cols: u32,
  span: u32, // octets of a part
  parts: u32, x_offset: u32, part_offset: u32,
}

@group(0) @binding(0) var<uniform> params: HealthParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> part: array<vec4<u32>>;

// The findings of four elements; those from column params.cols on do not count.
fn finding(bits: vec4<u32>, column: u32) -> vec4<u32> {
  let exponent = vec4<u32>(0x7f800000u);
  let inside = vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(params.cols);
  let finite = (bits & exponent) != exponent;
  let ordered = select(bits | vec4<u32>(0x80000000u), ~bits, (bits & vec4<u32>(0x80000000u)) != vec4<u32>(0u));
  let counted = select(vec4<u32>(0u), vec4<u32>(1u), inside);
  let bad = select(counted, vec4<u32>(0u), finite);
  let low = select(vec4<u32>(0xffffffffu), ordered, inside & finite);
  let high = select(vec4<u32>(0u), ordered, inside & finite);
  return vec4<u32>(
    bad.x + bad.y + bad.z + bad.w,
    min(min(low.x, low.y), min(low.z, low.w)),
    max(max(high.x, high.y), max(high.z, high.w)),
    counted.x + counted.y + counted.z + counted.w);
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP) fn health(own: Invocation) {
  let k = row_of(own);
  let end = min((k + 1u) * params.span, params.octets);
  var found = NOTHING;
  for (var o = k * params.span + own.local.x; o < end; o += LANES) {
    let column = o % params.row_octets * 8u;
    let at = params.x_offset / 4u + 2u * o;
    found = joined(found, joined(finding(x[at], column), finding(x[at + 1u], column + 4u)));
  }
  let all = over_row(found, own.local.x, own.local.y);
  if (own.local.x == 0u && k < params.parts) {
    part[params.part_offset / 4u + 2u * k] = all;
    part[params.part_offset / 4u + 2u * k + 1u] = vec4<u32>(0u);
  }
}
