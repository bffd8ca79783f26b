// row_scale: y[r] = (s, 1 / s) with s = 2^(14 - floor(log2(max_k |x[r, k]|)))
// with: row_lanes, row_reduction
//
//   x  [rows, groups * 8]  f32 or bf16, rows zero-padded to a multiple of 8
//   y  [rows, 2]           f32   must not alias x; the pitch is 8
//
// A row is multiplied with s before it is rounded to f16, which brings it near the top of f16's range. Nothing
// overflows, and only elements that are 2^28 times as small as the row's largest lose precision: s is a power of two. A
// row that has a NaN or an infinity gets (1, NaN), so that results show it; bits are compared, because compilers may
// assume that neither exists. LANES invocations share a row: one on CPU devices, few where rows are short.
// Dispatch: ceil(rows / ROWS_PER_WORKGROUP) workgroups, folded into x and y.

// tunables
const X_TYPE: u32 = 1u;

// x_offset and x_pitch count groups of 8 elements, y_offset counts rows.
struct RowScaleParams { rows: u32, groups: u32, x_offset: u32, x_pitch: u32, y_offset: u32 }

@group(0) @binding(0) var<uniform> params: RowScaleParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;

// How many times 16 bytes a group has.
const GROUP_WORDS: u32 = select(1u, 2u, X_TYPE == 0u);

alias Partial = u32;

fn joined(a: u32, b: u32) -> u32 {
  return max(a, b);
}

// The largest magnitude of the elements of 16 bytes, as the bits of an f32.
fn largest_of(word: vec4<u32>) -> u32 {
  var most = word & vec4<u32>(0x7fffffffu);
  if (X_TYPE == 1u) {
    most = max((word << vec4<u32>(16u)) & vec4<u32>(0x7fff0000u), word & vec4<u32>(0x7fff0000u));
  }
  return max(max(most.x, most.y), max(most.z, most.w));
}

@compute @workgroup_size(LANES, ROWS_PER_WORKGROUP) fn row_scale(own: Invocation) {
  let row = row_of(own);
  var most = 0u;
  if (row < params.rows) {
    let first = GROUP_WORDS * (params.x_offset + row * params.x_pitch);
    for (var i = own.local.x; i < GROUP_WORDS * params.groups; i += LANES) {
      most = max(most, largest_of(x[first + i]));
    }
  }
  most = over_row(most, own.local.x, own.local.y);
  if (own.local.x == 0u && row < params.rows) {
    let exponent = most >> 23u;
    // Both s and 1 / s stay normal numbers.
    let scale = clamp(268 - i32(exponent), 1, 253);
    var pair = vec2<u32>(u32(scale) << 23u, u32(254 - scale) << 23u);
    if (exponent == 255u) {
      pair = vec2<u32>(0x3f800000u, 0x7fc00000u);
    }
    let at = 2u * (params.y_offset + row);
    y[at] = vec4<u32>(pair, 0u, 0u);
    y[at + 1u] = vec4<u32>();
  }
}
