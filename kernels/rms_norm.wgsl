// rms_norm: y[r, c] = x[r, c] / sqrt(mean_c(x[r, :]^2) + eps) * weight[c]
//
//   x       [rows, cols]  f32
//   weight  [cols]        f32, zero from cols up to a multiple of 8
//   y       [rows, cols]  f32, or f16 with Y_F16   must not alias x
//
// LANES invocations (a power of two) share a row, eight columns at a time; the sum of squares is kept in f32. One lane
// a row runs no barrier, which is what CPU devices want. x's padding is zero, so it adds nothing and stays zero.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct Params {
  rows: u32,
  cols: u32,
  pitch: u32,
  x_offset: u32,
  y_offset: u32,
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<u32>>;

override LANES: u32 = 64u;
override ROWS_PER_WORKGROUP: u32 = 1u;
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

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP)
fn rms_norm(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let wanted = (workgroup.y * workgroups.x + workgroup.x) * ROWS_PER_WORKGROUP + local.y;
  // Rows past the end repeat the last one, because all invocations must reach the barriers.
  let row = min(wanted, params.rows - 1u);
  let octets = params.pitch / 8u;
  let x_row = params.x_offset / 4u + row * octets * 2u;

  var squares = vec4<f32>(0.0);
  for (var o = local.x; o < octets; o += LANES) {
    let a = x[x_row + 2u * o];
    let b = x[x_row + 2u * o + 1u];
    squares += a * a + b * b;
  }
  let sum = row_sum(squares.x + squares.y + squares.z + squares.w, local.x, local.y);
  let scale = 1.0 / sqrt(sum / f32(params.cols) + params.eps);

  if (wanted >= params.rows) {
    return;
  }
  let y_row = params.y_offset / 8u + row * octets;
  for (var o = local.x; o < octets; o += LANES) {
    let a = x[x_row + 2u * o] * scale * weight[2u * o];
    let b = x[x_row + 2u * o + 1u] * scale * weight[2u * o + 1u];
    store_y(y_row + o, a, b);
  }
}
