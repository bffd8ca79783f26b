// rgb8: y[3r + c] = round(clamp(x[r, c] / 2 + 1/2, 0, 1) * 255), as bytes, ties to even
// with: folded_dispatch
//
//   x  [rows, 3]       f32   pixels, nominally from -1 to 1, in rows of eight elements
//   y  [rows * 3 / 4]  u32   the bytes of four pixels in three words, first byte lowest; must not alias x
//
// rows is a multiple of 4. Dispatch: an invocation per four pixels, workgroups of 64, folded into x and y.

struct Rgb8Params { rows: u32, x_offset: u32, y_offset: u32 }

@group(0) @binding(0) var<uniform> params: Rgb8Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

fn pixel_bytes(row: u32) -> vec3<u32> {
  let value = x[params.x_offset / 4u + 2u * row].xyz;
  return vec3<u32>(round(clamp(value * 0.5 + 0.5, vec3<f32>(0.0), vec3<f32>(1.0)) * 255.0));
}

@compute @workgroup_size(64) fn rgb8(own: Invocation) {
  let quad = invocation_number(own);
  let row = 4u * quad;
  if (row >= params.rows) {
    return;
  }
  let a = pixel_bytes(row);
  let b = pixel_bytes(row + 1u);
  let c = pixel_bytes(row + 2u);
  let d = pixel_bytes(row + 3u);
  let at = params.y_offset + 3u * quad;
  y[at] = a.x | (a.y << 8u) | (a.z << 16u) | (b.x << 24u);
  y[at + 1u] = b.y | (b.z << 8u) | (c.x << 16u) | (c.y << 24u);
  y[at + 2u] = c.z | (d.x << 8u) | (d.y << 16u) | (d.z << 24u);
}
