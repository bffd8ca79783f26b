// conv2d: y[p, o] = bias[o] + sum_{ky, kx, c} x[tap(p, ky, kx), c] * weight[o, ky, kx, c]
// with: conv2d_call, f32_tile
//
//   x        [in_height * in_width, groups * 8]               f32   padding channels are zeros
//   weight   [cols, kernel_size * kernel_size * groups * 8]   f32, bf16 or f16, in the order [O, ky, kx, I]
//   bias     [cols]                                           f32
//   y        [pixels, cols]                                   f32   must not alias x; read only if ACCUMULATE
//
// A matrix product: k goes through all taps and their channels, and the rows of a are gathered from the image.
// ACCUMULATE adds to y instead of replacing it. A workgroup computes 64 pixels x 64 channels: see tile_product.
// Dispatch: (pixel tiles folded at 65535, column tiles, folds).

@group(0) @binding(0) var<uniform> params: Conv2dParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Where the pixel's taps begin in the (enlarged) input.
alias Row = vec2<u32>;

fn row_at(p: u32) -> Row {
  return corner_of(params.first_pixel + p);
}

// Zeros where the tap lies outside of the image.
fn row_group(corner: Row, group: u32, line: u32) -> Group {
  let place = place_of_group(group);
  let source = tap_address(corner + place.reach);
  if (source.y == 0u) {
    return Group();
  }
  let at = source.x / 4u + 2u * place.channels;
  return Group(x[at], x[at + 1u]);
}

@compute @workgroup_size(16, 16) fn conv2d(own: Invocation) {
  multiply_tiles(pixel_tile(own.tile), own.index, params.pixels, groups_of_row());
}
