// conv2d_call: what every kernel of conv2d is called with, and where the taps of a pixel lie
// with: product, weight_rows

const HAS_BIAS = true;
const HAS_GATE = false;
const SILU_GATE = false;

struct Conv2dParams {
  pixels: u32, // output pixels of this dispatch
  first_pixel: u32, // the first of them in the output image
  out_width: u32,
  cols: u32, groups: u32, // output channels, and input channels by eights
  kernel_size: u32,
  stride: u32,
  padding: u32, // left and top; right and bottom are what the output extents leave
  upsample_shift: u32, // 1: the input is read as its nearest-neighbour enlargement by two, 0: as it is
  in_height: u32, in_width: u32,
  x_first_row: u32, // the first image row that is bound
  x_offset: u32, x_pitch: u32, // elements
  weight_offset: u32, bias_offset: u32, // the weight's in groups
  y_offset: u32, y_pitch: u32, y_cols: u32, // of the first pixel; channels from cols up to y_cols are zeros
  x_scale_offset: u32, w_scale_offset: u32, // rows; only where operands are rounded to f16
}

// There is no gate, and no up.
fn gate_of(n: u32) -> f32 {
  return 1.0;
}

fn load_up(group: u32) -> array<vec4<f32>, 2> {
  return array<vec4<f32>, 2>();
}

fn groups_of_row() -> u32 {
  return params.kernel_size * params.kernel_size * params.groups;
}

// Row and column of a tile; tiles of pixels are folded into x and z of a dispatch, and the last ones may lie past the
// end.
fn pixel_tile(tile: vec3<u32>) -> vec2<u32> {
  return vec2<u32>(tile.z * 65535u + tile.x, tile.y);
}

// Column and row of an output pixel.
fn place_of_pixel(pixel: u32) -> vec2<u32> {
  let row = pixel / params.out_width;
  return vec2<u32>(pixel - row * params.out_width, row);
}

// Where in the (enlarged) input its taps begin.
fn corner_of(pixel: u32) -> vec2<u32> {
  return place_of_pixel(pixel) * params.stride - vec2<u32>(params.padding);
}

// A tap's place seen from there; taps are counted row by row.
fn reach_of(tap: u32) -> vec2<u32> {
  let row = tap / params.kernel_size;
  return vec2<u32>(tap - row * params.kernel_size, row);
}

// A pixel's sum runs through the channels of all its taps. For one group of eight terms: the tap that they belong to,
// and which group of its channels they are.
struct Place { reach: vec2<u32>, channels: u32 }

fn place_of_group(group: u32) -> Place {
  let tap = group / params.groups;
  return Place(reach_of(tap), group - tap * params.groups);
}

// A tap's element of x, and 1 if it lies inside of the image, else 0. `source` is its place in the (enlarged) input; it
// is unsigned on purpose, so that places above or to the left wrap around and are outside, too.
fn tap_address(source: vec2<u32>) -> vec2<u32> {
  let at = source >> vec2<u32>(params.upsample_shift);
  let inside = at.x < params.in_width && at.y < params.in_height;
  let address = params.x_offset + ((at.y - params.x_first_row) * params.in_width + at.x) * params.x_pitch;
  return select(vec2<u32>(params.x_offset, 0u), vec2<u32>(address, 1u), inside);
}
