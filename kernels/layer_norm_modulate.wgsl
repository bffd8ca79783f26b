// layer_norm_modulate: y[r, c] = (1 + scale[c]) * (x[r, c] - mean) / sqrt(variance + eps) + shift[c], moments of x[r, :]
//
//   x      [rows, cols]  f32
//   scale  [cols]        f32, a range of the modulation
//   shift  [cols]        f32, a range of the modulation
//   y      [rows, cols]  f32, or f16 with Y_F16   must not alias x
//
// The variance is biased and comes from squared deviations in a second pass over the row. LANES invocations (a power
// of two) share a row, eight columns at a time; one lane a row runs no barrier, which is what CPU devices want.
// `ALIGNED`: cols is a multiple of 8, the offsets of scale and shift are multiples of 4.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct Params {
  rows: u32,
  cols: u32,
  pitch: u32,
  x_offset: u32,
  scale_offset: u32,
  shift_offset: u32,
  y_offset: u32,
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> shift: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<u32>>;

override LANES: u32 = 64u;
override ROWS_PER_WORKGROUP: u32 = 1u;
override ALIGNED: bool = true;
override Y_F16: bool = false;

var<workgroup> partial: array<f32, LANES * ROWS_PER_WORKGROUP>;

// The sum of `value` over the lanes of a row, for all of them; every invocation of the workgroup must come here.
fn row_sum(value: f32, lane: u32, row: u32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let at = row * LANES + lane;
  workgroupBarrier();
  partial[at] = value;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) {
      partial[at] += partial[at + step];
    }
    workgroupBarrier();
  }
  return partial[row * LANES];
}

// Eight values as f16, value 2i in the low half of word i, clamped to what f16 holds.
fn pack_f16(a: vec4<f32>, b: vec4<f32>) -> vec4<u32> {
  let most = vec4<f32>(65504.0);
  let lo = clamp(a, -most, most);
  let hi = clamp(b, -most, most);
  return vec4<u32>(pack2x16float(lo.xy), pack2x16float(lo.zw), pack2x16float(hi.xy), pack2x16float(hi.zw));
}

// Writes the eight values that begin at element 8 * octet of y.
fn store_y(octet: u32, a: vec4<f32>, b: vec4<f32>) {
  if (Y_F16) {
    y[octet] = pack_f16(a, b);
  } else {
    y[2u * octet] = bitcast<vec4<u32>>(a);
    y[2u * octet + 1u] = bitcast<vec4<u32>>(b);
  }
}

fn scale_at(c: u32) -> f32 {
  let i = params.scale_offset + min(c, params.cols - 1u);
  return scale[i / 4u][i % 4u];
}

fn shift_at(c: u32) -> f32 {
  let i = params.shift_offset + min(c, params.cols - 1u);
  return shift[i / 4u][i % 4u];
}

// Four columns of the result from c on, zero beyond the last one.
fn modulated(normed: vec4<f32>, c: u32) -> vec4<f32> {
  if (ALIGNED) {
    return (1.0 + scale[(params.scale_offset + c) / 4u]) * normed + shift[(params.shift_offset + c) / 4u];
  }
  let scales = vec4<f32>(scale_at(c), scale_at(c + 1u), scale_at(c + 2u), scale_at(c + 3u));
  let shifts = vec4<f32>(shift_at(c), shift_at(c + 1u), shift_at(c + 2u), shift_at(c + 3u));
  return within((1.0 + scales) * normed + shifts, c);
}

// Four columns from c on, those past the last one replaced by zero.
fn within(values: vec4<f32>, c: u32) -> vec4<f32> {
  if (ALIGNED) {
    return values;
  }
  return select(vec4<f32>(0.0), values, vec4<u32>(c, c + 1u, c + 2u, c + 3u) < vec4<u32>(params.cols));
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP)
fn layer_norm_modulate(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let wanted = (workgroup.y * workgroups.x + workgroup.x) * ROWS_PER_WORKGROUP + local.y;
  // Rows past the end repeat the last one, because all invocations must reach the barriers.
  let row = min(wanted, params.rows - 1u);
  let octets = params.pitch / 8u;
  let x_row = params.x_offset / 4u + row * octets * 2u;

  var total = vec4<f32>(0.0);
  for (var o = local.x; o < octets; o += LANES) {
    total += x[x_row + 2u * o] + x[x_row + 2u * o + 1u];
  }
  let mean = row_sum(total.x + total.y + total.z + total.w, local.x, local.y) / f32(params.cols);

  var squares = vec4<f32>(0.0);
  for (var o = local.x; o < octets; o += LANES) {
    let a = within(x[x_row + 2u * o] - mean, 8u * o);
    let b = within(x[x_row + 2u * o + 1u] - mean, 8u * o + 4u);
    squares += a * a + b * b;
  }
  let variance = row_sum(squares.x + squares.y + squares.z + squares.w, local.x, local.y) / f32(params.cols);
  let inverse = 1.0 / sqrt(variance + params.eps);

  if (wanted >= params.rows) {
    return;
  }
  let y_row = params.y_offset / 8u + row * octets;
  for (var o = local.x; o < octets; o += LANES) {
    let a = modulated((x[x_row + 2u * o] - mean) * inverse, 8u * o);
    let b = modulated((x[x_row + 2u * o + 1u] - mean) * inverse, 8u * o + 4u);
    store_y(y_row + o, a, b);
  }
}
