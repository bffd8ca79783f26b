// softmax: x[r, c] = exp2(scale * (x[r, c] - max_c x[r, :])) / sum_c exp2(scale * (x[r, c] - max_c x[r, :])), in place
//
//   x   [rows, cols]  f32, read and written; its padding is zero and stays so
//
// LANES invocations (a power of two) share a row. With scale = log2(e) * s this is the softmax of s * x. A NaN in a row
// makes the row NaN. One lane a row runs no barrier, which is what CPU devices want.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct Params {
  rows: u32,
  cols: u32,
  pitch: u32,
  x_offset: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;

override LANES: u32 = 64u;
override ROWS_PER_WORKGROUP: u32 = 1u;

const LOWEST: f32 = -3.4e38;

var<workgroup> partial: array<f32, LANES * ROWS_PER_WORKGROUP>;

// The sum, or the maximum, of `value` over the lanes of a row, for all of them; every invocation must come here.
fn over_row(value: f32, is_sum: bool, lane: u32, row: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let at = row * LANES + lane;
  workgroupBarrier();
  partial[at] = value;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) {
      let other = partial[at + step];
      partial[at] = select(max(partial[at], other), partial[at] + other, is_sum);
    }
    workgroupBarrier();
  }
  return partial[row * LANES];
}

// Which of the four columns from 4 * quad on are not padding.
fn inside(quad: u32) -> vec4<bool> {
  return vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.cols);
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP)
fn softmax(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let wanted = (workgroup.y * workgroups.x + workgroup.x) * ROWS_PER_WORKGROUP + local.y;
  // Rows past the end repeat the last one, because all invocations must reach the barriers; they write nothing.
  let row = min(wanted, params.rows - 1u);
  let is_row = wanted < params.rows;
  let quads = params.pitch / 4u;
  let begin = params.x_offset / 4u + row * quads;

  var highest = vec4<f32>(LOWEST);
  for (var i = local.x; i < quads; i += LANES) {
    highest = max(highest, select(vec4<f32>(LOWEST), x[begin + i], inside(i)));
  }
  let top = over_row(max(max(highest.x, highest.y), max(highest.z, highest.w)), false, local.x, local.y);

  var sums = vec4<f32>(0.0);
  for (var i = local.x; i < quads; i += LANES) {
    let weight = select(vec4<f32>(0.0), exp2(params.scale * (x[begin + i] - top)), inside(i));
    sums += weight;
    if (is_row) {
      x[begin + i] = weight;
    }
  }
  let total = over_row(sums.x + sums.y + sums.z + sums.w, true, local.x, local.y);
  if (!is_row) {
    return;
  }
  // An invocation reads only what it wrote itself.
  for (var i = local.x; i < quads; i += LANES) {
    x[begin + i] = select(vec4<f32>(0.0), x[begin + i] / total, inside(i));
  }
}
