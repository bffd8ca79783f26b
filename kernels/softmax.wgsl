// softmax: x[r, c] = exp2(scale * (x[r, c] - max_c x[r, :])) / sum_c exp2(scale * (x[r, c] - max_c x[r, :])), in place
// with: row_lanes, row_reduction
//
//   x   [rows, cols]  f32, read and written; its padding is zero and stays so
//
// LANES invocations share a row. With scale = log2(e) * s this is the softmax of s * x. A NaN in a row makes the row
// NaN.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct SoftmaxParams { rows: u32, cols: u32, pitch: u32, x_offset: u32, scale: f32 }

@group(0) @binding(0) var<uniform> params: SoftmaxParams;
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;

const LOWEST: f32 = -3.4e38;

// A maximum and a sum.
alias Partial = vec2<f32>;

fn joined(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  return Partial(max(a.x, b.x), a.y + b.y);
}

// Which of the four columns from 4 * quad on are not padding.
fn inside(quad: u32) -> vec4<bool> {
  return vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.cols);
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP) fn softmax(own: Invocation) {
  let is_row = row_of(own) < params.rows;
  let quads = params.pitch / 4u;
  let begin = params.x_offset / 4u + row_within(own, params.rows) * quads;

  var highest = vec4<f32>(LOWEST);
  for (var i = own.local.x; i < quads; i += LANES) {
    highest = max(highest, select(vec4<f32>(LOWEST), x[begin + i], inside(i)));
  }
  let highest_here = max(max(highest.x, highest.y), max(highest.z, highest.w));
  let top = over_row(Partial(highest_here, 0.0), own.local.x, own.local.y).x;

  var sums = vec4<f32>(0.0);
  for (var i = own.local.x; i < quads; i += LANES) {
    let weight = select(vec4<f32>(0.0), exp2(params.scale * (x[begin + i] - top)), inside(i));
    sums += weight;
    if (is_row) {
      x[begin + i] = weight;
    }
  }
  let total = over_row(Partial(top, sums.x + sums.y + sums.z + sums.w), own.local.x, own.local.y).y;
  if (!is_row) {
    return;
  }
  // An invocation reads only what it has written itself.
  for (var i = own.local.x; i < quads; i += LANES) {
    x[begin + i] = select(vec4<f32>(0.0), x[begin + i] / total, inside(i));
  }
}
