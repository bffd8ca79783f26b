// group_norm_silu: y[r, c] = act((x[r, c] - mean_g) * inverse_g * weight[c] + bias[c]), g = c / group_cols
// with: folded_dispatch, silu
//
//   x        [rows, groups * group_cols]  f32
//   moments  [groups, 2]                  f32   mean and 1 / sqrt(variance + eps)
//   weight   [groups * group_cols]        f32, zero from there up to a multiple of 8
//   bias     [groups * group_cols]        f32, likewise, which makes the padding of y zero
//   y        [rows, groups * group_cols]  f32   must not alias x
//
// act(v) = v / (1 + exp(-v)) with SILU, v without. An invocation keeps the parameters of eight columns for rows_each
// rows. Dispatch: an invocation per eight columns and rows_each rows, workgroups of 64, folded into x and y.

struct GroupNormSiluParams {
  rows: u32, groups: u32, group_cols: u32, pitch: u32, // of x and y
  rows_each: u32, x_offset: u32, moments_offset: u32, y_offset: u32,
}

@group(0) @binding(0) var<uniform> params: GroupNormSiluParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> moments: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

override SILU: bool = true;

fn activated(v: vec4<f32>) -> vec4<f32> {
  if (SILU) {
    return silu4(v);
  }
  return v;
}

fn moments_of(column: u32) -> vec2<f32> {
  return moments[params.moments_offset / 2u + min(column / params.group_cols, params.groups - 1u)];
}

@compute @workgroup_size(64) fn group_norm_silu(own: Invocation) {
  let block = invocation_number(own);
  let octets = params.pitch / 8u;
  let octet = block % octets;
  let first = block / octets * params.rows_each;
  if (first >= params.rows) {
    return;
  }
  let c = 8u * octet;
  let m0 = moments_of(c);
  let m1 = moments_of(c + 1u);
  let m2 = moments_of(c + 2u);
  let m3 = moments_of(c + 3u);
  let m4 = moments_of(c + 4u);
  let m5 = moments_of(c + 5u);
  let m6 = moments_of(c + 6u);
  let m7 = moments_of(c + 7u);
  let mean_a = vec4<f32>(m0.x, m1.x, m2.x, m3.x);
  let mean_b = vec4<f32>(m4.x, m5.x, m6.x, m7.x);
  let scale_a = vec4<f32>(m0.y, m1.y, m2.y, m3.y) * weight[2u * octet];
  let scale_b = vec4<f32>(m4.y, m5.y, m6.y, m7.y) * weight[2u * octet + 1u];
  let bias_a = bias[2u * octet];
  let bias_b = bias[2u * octet + 1u];

  let end = min(first + params.rows_each, params.rows);
  for (var row = first; row < end; row++) {
    let at = row * octets * 2u + 2u * octet;
    let x_at = params.x_offset / 4u + at;
    let y_at = params.y_offset / 4u + at;
    y[y_at] = activated((x[x_at] - mean_a) * scale_a + bias_a);
    y[y_at + 1u] = activated((x[x_at + 1u] - mean_b) * scale_b + bias_b);
  }
}
