// group_norm_statistics: part[k, g] = (mean, sum of squared deviations from it) of chunk k's rows and group g's columns
//
//   x     [rows, groups * group_cols]              f32
//   part  [ceil(rows / rows_per_chunk), groups, 2]  f32   must not alias x
//
// Two passes over a chunk: the mean first, then the deviations. An invocation owns one group and every PHASES-th row;
// PHASES (a power of two) of them share a chunk and a group. One phase runs no barrier, which is what CPU devices want.
// ALIGNED: group_cols is a multiple of 4. Dispatch: chunks * ceil(groups / GROUPS) workgroups, folded into x and y.

struct Params {
  rows: u32,
  rows_per_chunk: u32,
  groups: u32,
  group_cols: u32,
  x_pitch: u32,
  x_offset: u32,
  part_pitch: u32,
  part_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> part: array<vec2<f32>>;

override GROUPS: u32 = 8u;
override PHASES: u32 = 16u;
override ALIGNED: bool = true;

var<workgroup> partial: array<f32, GROUPS * PHASES>;

// The sum of `value` over the phases of a group, for all of them; every invocation of the workgroup must come here.
fn phase_sum(value: f32, group: u32, phase: u32) -> f32 {
  if (PHASES == 1u) {
    return value;
  }
  let at = phase * GROUPS + group;
  workgroupBarrier();
  partial[at] = value;
  workgroupBarrier();
  for (var step = PHASES / 2u; step > 0u; step /= 2u) {
    if (phase < step) {
      partial[at] += partial[at + step * GROUPS];
    }
    workgroupBarrier();
  }
  return partial[group];
}

// Sum over a group's columns of one row, from element `at` on: of the values, or of their squared distances from a mean.
fn row_part(at: u32, mean: f32, squared: bool) -> f32 {
  if (ALIGNED) {
    var sum = vec4<f32>(0.0);
    for (var c = 0u; c < params.group_cols; c += 4u) {
      let values = x[(at + c) / 4u] - mean;
      sum += select(values, values * values, squared);
    }
    return sum.x + sum.y + sum.z + sum.w;
  }
  var sum = 0.0;
  for (var c = 0u; c < params.group_cols; c++) {
    let value = x[(at + c) / 4u][(at + c) % 4u] - mean;
    sum += select(value, value * value, squared);
  }
  return sum;
}

@compute @workgroup_size(GROUPS, PHASES)
fn group_norm_statistics(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let index = workgroup.y * workgroups.x + workgroup.x;
  let blocks = (params.groups + GROUPS - 1u) / GROUPS;
  let chunk = index / blocks;
  let wanted = index % blocks * GROUPS + local.x;
  // Groups past the end repeat the last one, because all invocations must reach the barriers.
  let group = min(wanted, params.groups - 1u);
  let first = min(chunk * params.rows_per_chunk, params.rows - 1u);
  let end = min(first + params.rows_per_chunk, params.rows);
  let count = f32((end - first) * params.group_cols);
  let x_group = params.x_offset + group * params.group_cols;

  var total = 0.0;
  for (var r = first + local.y; r < end; r += PHASES) {
    total += row_part(x_group + r * params.x_pitch, 0.0, false);
  }
  let mean = phase_sum(total, local.x, local.y) / count;

  var squares = 0.0;
  for (var r = first + local.y; r < end; r += PHASES) {
    squares += row_part(x_group + r * params.x_pitch, mean, true);
  }
  let deviations = phase_sum(squares, local.x, local.y);

  if (local.y > 0u || wanted >= params.groups || chunk * params.rows_per_chunk >= params.rows) {
    return;
  }
  let part_row = (params.part_offset + chunk * params.part_pitch) / 2u;
  part[part_row + group] = vec2<f32>(mean, deviations);
  if (group == params.groups - 1u) {
    for (var g = params.groups; g < params.part_pitch / 2u; g++) {
      part[part_row + g] = vec2<f32>(0.0);
    }
  }
}
