// split_heads: y[h, t, :] = rope(x[s, h, :] / sqrt(mean(x[s, h, :]^2) + eps) * weight), t = first row of y + s
// with: row_lanes, row_sum, column_sum, store_octet
//
//   x       [rows, heads, head_size]           f32   within rows of x_pitch elements
//   weight  [head_size]                        f32, zero from there up to a multiple of 8
//   cos     [rows, head_size / 2]              f32
//   sin     [rows, head_size / 2]              f32
//   y       [heads, y_head_stride, head_size]  f32, or f16 with Y_F16   must not alias x
//
// COPY: y[h, t, :] = x[s, h, :], for v. HALVES: rope rotates the pairs (i, i + head_size / 2), as Qwen3 does, instead
// of the neighbours (2i, 2i + 1), as FLUX.2 does. ALIGNED: head_size is a multiple of 8, x_offset of 4.
// LANES invocations share a row of y, eight columns at a time.
// Dispatch: ceil(rows * heads / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

struct SplitHeadsParams {
  rows: u32, heads: u32, head_size: u32,
  x_pitch: u32, x_offset: u32, // of the first row's first head
  rope_pitch: u32, cos_offset: u32, sin_offset: u32,
  y_pitch: u32, y_offset: u32, // of the first head's first row to write
  y_head_stride: u32, // elements from one head to the next
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: SplitHeadsParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> cos: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> sin: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<u32>>;

override HALVES: bool = false;
override COPY: bool = false;

// Where a row and its tables begin, in elements, and the norm's factor.
struct Row { x: u32, cos: u32, sin: u32, scale: f32 }

// Column c of the row after the norm.
fn normed(row: Row, c: u32) -> f32 {
  return x[(row.x + c) / 4u][(row.x + c) % 4u] * row.scale * weight[c / 4u][c % 4u];
}

// Columns c to c + 3 of the row after the norm; ALIGNED only.
fn normed4(row: Row, c: u32) -> vec4<f32> {
  return x[(row.x + c) / 4u] * row.scale * weight[c / 4u];
}

// Column c of the result, zero past the last one.
fn result(row: Row, c: u32) -> f32 {
  if (c >= params.head_size) {
    return 0.0;
  }
  if (COPY) {
    return x[(row.x + c) / 4u][(row.x + c) % 4u];
  }
  let half = params.head_size / 2u;
  var pair = c / 2u;
  var partner = c ^ 1u;
  var is_first = c % 2u == 0u;
  if (HALVES) {
    pair = c % half;
    is_first = c < half;
    partner = select(c - half, c + half, is_first);
  }
  let turned = normed(row, partner) * sin[(row.sin + pair) / 4u][(row.sin + pair) % 4u];
  return normed(row, c) * cos[(row.cos + pair) / 4u][(row.cos + pair) % 4u] + select(turned, -turned, is_first);
}

// Columns c to c + 3 of the result, c a multiple of 4.
fn result4(row: Row, c: u32) -> vec4<f32> {
  if (!ALIGNED) {
    return vec4<f32>(result(row, c), result(row, c + 1u), result(row, c + 2u), result(row, c + 3u));
  }
  if (COPY) {
    return x[(row.x + c) / 4u];
  }
  let own = normed4(row, c);
  if (HALVES) {
    let half = params.head_size / 2u;
    let is_first = c < half;
    let pair = select(c - half, c, is_first);
    let turned = normed4(row, select(c - half, c + half, is_first)) * sin[(row.sin + pair) / 4u];
    return own * cos[(row.cos + pair) / 4u] + select(turned, -turned, is_first);
  }
  // Four columns are two pairs, so they take the first or the second half of a vector of the tables.
  let cosines = cos[(row.cos + c / 2u) / 4u];
  let sines = sin[(row.sin + c / 2u) / 4u];
  let second = c % 8u != 0u;
  let along = select(cosines.xxyy, cosines.zzww, second);
  let across = select(sines.xxyy, sines.zzww, second);
  return own * along + vec4<f32>(-own.y, own.x, -own.w, own.z) * across;
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP) fn split_heads(own: Invocation) {
  let index = row_within(own, params.rows * params.heads);
  let head = index % params.heads;
  let s = index / params.heads;
  var row: Row;
  row.x = params.x_offset + s * params.x_pitch + head * params.head_size;
  row.cos = params.cos_offset + s * params.rope_pitch;
  row.sin = params.sin_offset + s * params.rope_pitch;
  if (!COPY) {
    let squares = column_sum(row.x, params.head_size, own.local.x, LANES, 0.0, true);
    let sum = row_sum(squares, own.local.x, own.local.y);
    row.scale = 1.0 / sqrt(sum / f32(params.head_size) + params.eps);
  }
  if (row_of(own) >= params.rows * params.heads) {
    return;
  }
  let y_row = (params.y_offset + head * params.y_head_stride + s * params.y_pitch) / 8u;
  for (var o = own.local.x; o < params.y_pitch / 8u; o += LANES) {
    store_octet(y_row + o, result4(row, 8u * o), result4(row, 8u * o + 4u));
  }
}
