// group_norm_statistics: part[k, g] = (mean, sum of squared deviations from it) of chunk k's rows and group g's columns
// with: folded_dispatch, row_sum, column_sum
//
//   x     [rows, groups * group_cols]              f32
//   part  [ceil(rows / rows_per_chunk), groups, 2]  f32   must not alias x
//
// A first pass over a chunk gives the mean, a second one the deviations. PHASES invocations (a power of two) share a
// chunk and a group; each has every PHASES-th row. With one phase no barrier is run, which is what CPU devices want.
// ALIGNED: group_cols is a multiple of 4. Dispatch: chunks * ceil(groups / GROUPS) workgroups, folded into x and y.

struct GroupNormStatisticsParams {
  rows: u32, rows_per_chunk: u32, groups: u32, group_cols: u32,
  x_pitch: u32, x_offset: u32, part_pitch: u32, part_offset: u32,
}

@group(0) @binding(0) var<uniform> params: GroupNormStatisticsParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> part: array<vec2<f32>>;

override GROUPS: u32 = 8u;
override PHASES: u32 = 16u;

// For row_sum: a row is a group, and its lanes are the phases.
override LANES: u32 = PHASES;
override ROWS_PER_WORKGROUP: u32 = GROUPS;

@compute @workgroup_size(GROUPS, PHASES) fn group_norm_statistics(own: Invocation) {
  let index = workgroup_number(own);
  let blocks = (params.groups + GROUPS - 1u) / GROUPS;
  let chunk = index / blocks;
  let wanted = index % blocks * GROUPS + own.local.x;
  // Groups past the end repeat the last one, because all invocations must reach the barriers.
  let group = min(wanted, params.groups - 1u);
  let first = min(chunk * params.rows_per_chunk, params.rows - 1u);
  let end = min(first + params.rows_per_chunk, params.rows);
  let count = f32((end - first) * params.group_cols);
  let x_group = params.x_offset + group * params.group_cols;

  var total = 0.0;
  for (var r = first + own.local.y; r < end; r += PHASES) {
    total += column_sum(x_group + r * params.x_pitch, params.group_cols, 0u, 1u, 0.0, false);
  }
  let mean = row_sum(total, own.local.y, own.local.x) / count;

  var squares = 0.0;
  for (var r = first + own.local.y; r < end; r += PHASES) {
    squares += column_sum(x_group + r * params.x_pitch, params.group_cols, 0u, 1u, mean, true);
  }
  let deviations = row_sum(squares, own.local.y, own.local.x);

  if (own.local.y > 0u || wanted >= params.groups || chunk * params.rows_per_chunk >= params.rows) {
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
