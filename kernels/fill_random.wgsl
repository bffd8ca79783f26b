// fill_random: y[r, c] = mean + deviation * noise(8 * (first + octet) + lane) where c < cols, 0 from cols up to the pitch
// with: folded_dispatch
//
//   y  [octets, 8]  f32, or bf16 with Y_BF16   rows of row_octets octets
//
// noise(i) is the sum of the four bytes of a hash of i and key, shifted and scaled to mean 0 and variance 1: it is
// nearly normal, and at most 3.46 on either side. It depends on the element's place alone, not on where a dispatch
// begins. Dispatches begin at a row. Dispatch: an invocation per eight elements, workgroups of 64, folded into x and y.

struct FillRandomParams {
  octets: u32, row_octets: u32, cols: u32,
  first: u32, y_offset: u32, // the octet of the whole where y begins, and the vector of y where it goes
  key: u32, mean: f32, deviation: f32,
}

@group(0) @binding(0) var<uniform> params: FillRandomParams;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;

override Y_BF16: bool = true;

// MurmurHash3's finaliser: every bit of the result depends on every bit of v.
fn mix4(v: vec4<u32>) -> vec4<u32> {
  var h = (v ^ (v >> vec4<u32>(16u))) * 0x85ebca6bu;
  h = (h ^ (h >> vec4<u32>(13u))) * 0xc2b2ae35u;
  return h ^ (h >> vec4<u32>(16u));
}

// The sum of four bytes has a mean of 510 and a variance of 4 * (256^2 - 1) / 12.
fn noise4(i: vec4<u32>) -> vec4<f32> {
  let h = mix4(i ^ vec4<u32>(params.key));
  let pairs = (h & vec4<u32>(0x00ff00ffu)) + ((h >> vec4<u32>(8u)) & vec4<u32>(0x00ff00ffu));
  let sums = (pairs & vec4<u32>(0xffffu)) + (pairs >> vec4<u32>(16u));
  return (vec4<f32>(sums) - 510.0) * (1.0 / 147.80054);
}

// Elements c to c + 3 of a row; i is the first one's number.
fn values4(i: u32, c: u32) -> vec4<f32> {
  let lanes = vec4<u32>(0u, 1u, 2u, 3u);
  let values = params.mean + params.deviation * noise4(vec4<u32>(i) + lanes);
  return select(vec4<f32>(0.0), values, vec4<u32>(c) + lanes < vec4<u32>(params.cols));
}

// The upper halves of the floats, rounded to nearest, ties to even.
fn bf16_bits(values: vec4<f32>) -> vec4<u32> {
  let bits = bitcast<vec4<u32>>(values);
  return (bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))) >> vec4<u32>(16u);
}

@compute @workgroup_size(64) fn fill_random(own: Invocation) {
  let octet = invocation_number(own);
  if (octet >= params.octets) {
    return;
  }
  let i = 8u * (params.first + octet);
  let c = 8u * (octet % params.row_octets);
  let low = values4(i, c);
  let high = values4(i + 4u, c + 4u);
  if (Y_BF16) {
    let a = bf16_bits(low);
    let b = bf16_bits(high);
    y[params.y_offset + octet] = vec4<u32>(a.xz, b.xz) | (vec4<u32>(a.yw, b.yw) << vec4<u32>(16u));
  } else {
    let at = params.y_offset + 2u * octet;
    y[at] = bitcast<vec4<u32>>(low);
    y[at + 1u] = bitcast<vec4<u32>>(high);
  }
}
