// health: part[k] = (how many are not finite, the least, the greatest, how many) of the k-th span of x's elements
//
//   x     [rows, cols]   f32, read as bits, in rows of 8 * row_octets elements; padding is left out
//   part  [parts, 8]     u32   four words and four zeros; must not alias x
//
// A WGSL compiler may assume that NaN does not exist, so nothing here is a float: a value is not finite if its exponent
// bits are all set, and as integers ordered(bits) compare like the numbers. Only finite values count for the least and
// the greatest. LANES invocations (a power of two) share a span; one lane a span runs no barrier.
// Dispatch: ceil(parts / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct Params {
  octets: u32, // of eight elements, in all rows
  row_octets: u32,
  cols: u32,
  span: u32, // octets of a part
  parts: u32,
  x_offset: u32,
  part_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> part: array<vec4<u32>>;

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

// Four elements, of which those whose column is below params.cols count.
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

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP)
fn health(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let k = (workgroup.y * workgroups.x + workgroup.x) * ROWS_PER_WORKGROUP + local.y;
  let end = min((k + 1u) * params.span, params.octets);
  var found = NOTHING;
  for (var o = k * params.span + local.x; o < end; o += LANES) {
    let column = o % params.row_octets * 8u;
    let at = params.x_offset / 4u + 2u * o;
    found = joined(found, joined(finding(x[at], column), finding(x[at + 1u], column + 4u)));
  }
  let all = row_joined(found, local.x, local.y);
  if (local.x == 0u && k < params.parts) {
    part[params.part_offset / 4u + 2u * k] = all;
    part[params.part_offset / 4u + 2u * k + 1u] = vec4<u32>(0u);
  }
}
