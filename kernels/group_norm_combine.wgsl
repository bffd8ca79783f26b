// group_norm_combine: y[k, g] = (mean, sum of squared deviations) of parts [k * fan, (k + 1) * fan) taken together
// with: folded_dispatch
//
//   part  [parts, groups, 2]              f32   mean and sum of squared deviations, each of part_rows rows
//   y     [ceil(parts / fan), groups, 2]  f32   must not alias part; with FINISH (mean, 1 / sqrt(variance + eps))
//
// Chan, Golub, LeVeque (1979): M = sum_i M_i + n_i (mean_i - mean)^2 with mean = sum_i n_i mean_i / sum_i n_i. The last
// part may have fewer rows: `rows` counts all of them. The parts are taken in order, so the result is always the same.
// Dispatch: an invocation per element pair of y, workgroups of 64, folded into x and y.

struct GroupNormCombineParams {
  parts: u32, fan: u32, part_rows: u32, rows: u32, groups: u32, group_cols: u32,
  pitch: u32, // of part and of y
  part_offset: u32, y_offset: u32, eps: f32,
}

@group(0) @binding(0) var<uniform> params: GroupNormCombineParams;
@group(0) @binding(1) var<storage, read> part: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<f32>>;

override FINISH: bool = true;

@compute @workgroup_size(64) fn group_norm_combine(own: Invocation) {
  let pair = invocation_number(own);
  let row = pair / params.groups;
  let group = pair % params.groups;
  let first = row * params.fan;
  if (first >= params.parts) {
    return;
  }
  let end = min(first + params.fan, params.parts);
  let rows = f32(min(end * params.part_rows, params.rows) - first * params.part_rows);
  let stride = params.pitch / 2u;
  let column = params.part_offset / 2u + group;

  var mean = 0.0;
  for (var i = first; i < end; i++) {
    let part_rows = f32(min(params.part_rows, params.rows - i * params.part_rows));
    mean += part_rows / rows * part[column + i * stride].x;
  }
  var deviations = 0.0;
  for (var i = first; i < end; i++) {
    let part_rows = f32(min(params.part_rows, params.rows - i * params.part_rows));
    let moments = part[column + i * stride];
    let shift = moments.x - mean;
    deviations += moments.y + part_rows * f32(params.group_cols) * shift * shift;
  }

  let y_row = params.y_offset / 2u + row * stride;
  if (FINISH) {
    let variance = deviations / (rows * f32(params.group_cols));
    y[y_row + group] = vec2<f32>(mean, 1.0 / sqrt(variance + params.eps));
  } else {
    y[y_row + group] = vec2<f32>(mean, deviations);
  }
  if (group == params.groups - 1u) {
    for (var g = params.groups; g < stride; g++) {
      y[y_row + g] = vec2<f32>(0.0);
    }
  }
}
