// conv2d_subgroup_matrix: y[p, o] = bias[o] + sum_{ky, kx, c} x[tap(p, ky, kx), c] * weight[o, ky, kx, c], ACCUMULATE: + y[p, o]
//
//   x        [in_height * in_width, groups * 8]               f32   padding channels are zeros
//   weight   [cols, kernel_size * kernel_size * groups * 8]   f32, bf16 or f16, in the order [O, ky, kx, I]
//   bias     [cols]                                           f32
//   x_scale  [in_height * in_width, 2]                        f32   of row_scale, for x
//   w_scale  [cols, 2]                                        f32   of row_scale, for a weight in f32 or bf16
//   y        [pixels, cols]                                   f32   must not alias x; read only if ACCUMULATE
//
// The same function as conv2d with operands rounded to f16, for matrix units that multiply f16 and add in f32: an implicit
// matrix product, laid out as matmul_subgroup_matrix is, whose rows of a are gathered from the image, one tap after the
// other. What a pixel's taps gather is scaled by the smallest of their scales, so that its sum has one scale.
// Dispatch: (pixel tiles folded at 65535, column tiles, folds).

enable f16;
enable subgroups;
enable subgroup_size_control;
enable chromium_experimental_subgroup_matrix;

diagnostic(off, chromium.subgroup_matrix_uniformity);

// tunables
const WEIGHT_TYPE: u32 = 1u;
const MATRIX_M: u32 = 16u;
const MATRIX_N: u32 = 16u;
const MATRIX_K: u32 = 16u;
const ROWS: u32 = 4u;
const COLS: u32 = 4u;
const SUBGROUP_ROWS: u32 = 2u;
const SUBGROUP_COLS: u32 = 2u;
const SUBGROUP_SIZE: u32 = 32u;
const STEP: u32 = 32u;

override ACCUMULATE: bool = false;

struct Params {
  pixels: u32, // output pixels of this dispatch
  first_pixel: u32, // the first of them in the output image
  out_width: u32,
  cols: u32, // output channels
  groups: u32, // of 8 input channels
  kernel_size: u32,
  stride: u32,
  padding: u32, // left and top; right and bottom are what the output extents leave
  upsample_shift: u32, // 1: the input is read as its nearest-neighbour enlargement by two, 0: as it is
  in_height: u32,
  in_width: u32,
  x_first_row: u32, // the first image row that is bound
  x_offset: u32, // elements
  x_pitch: u32,
  weight_offset: u32, // groups
  bias_offset: u32,
  y_offset: u32, // of the first pixel
  y_pitch: u32,
  y_cols: u32, // channels to write; those from cols on are zeros
  x_scale_offset: u32, // rows
  w_scale_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x_scale: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> w_scale: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const BLOCK_M: u32 = ROWS * MATRIX_M; // of one subgroup
const BLOCK_N: u32 = COLS * MATRIX_N;
const TILE_M: u32 = SUBGROUP_ROWS * BLOCK_M;
const TILE_N: u32 = SUBGROUP_COLS * BLOCK_N;
const WORKGROUP: u32 = SUBGROUP_ROWS * SUBGROUP_COLS * SUBGROUP_SIZE;
// Operands are read 16 bytes at a time, neighbours by neighbouring invocations: the elements in them, and how many of
// them an invocation reads in a step.
const A_WIDTH: u32 = 4u;
const W_WIDTH: u32 = select(8u, 4u, WEIGHT_TYPE == 0u);
const A_WORDS: u32 = TILE_M * STEP / (A_WIDTH * WORKGROUP);
const W_WORDS: u32 = TILE_N * STEP / (W_WIDTH * WORKGROUP);
const_assert A_WORDS * A_WIDTH * WORKGROUP == TILE_M * STEP && W_WORDS * W_WIDTH * WORKGROUP == TILE_N * STEP;
// Rows in workgroup memory are longer than needed, because rows that begin in the same bank would wait for each other.
// Of the tiles four elements of k are a vector.
const PITCH: u32 = STEP / 4u + 2u;
const SUM_PITCH: u32 = TILE_N + 8u;
// Results for which an invocation reads biases and what they are added to before it writes one of them: reads would wait
// for the writes before them.
const BATCH: u32 = 8u;
const_assert SUBGROUP_ROWS * MATRIX_M * TILE_N % (BATCH * WORKGROUP) == 0u;
const OUTSIDE: u32 = 0xffffffffu;

var<workgroup> a_tile: array<vec4<f16>, TILE_M * PITCH>;
var<workgroup> w_tile: array<vec4<f16>, TILE_N * PITCH>;
// A row of matrices of every subgroup, [SUBGROUP_ROWS * MATRIX_M, TILE_N].
var<workgroup> sums: array<f32, SUBGROUP_ROWS * MATRIX_M * SUM_PITCH>;
// Scales of the tile's pixels and columns, and their reciprocals.
var<workgroup> a_scales: array<vec2<f32>, TILE_M>;
var<workgroup> w_scales: array<vec2<f32>, TILE_N>;
// Where in the (enlarged) input the taps of a pixel begin.
var<workgroup> corners: array<vec2<u32>, TILE_M>;

// The elements of 16 bytes as f16, times a scale that keeps them in its range; four of f32, eight of what is shorter. What
// is f16 already has no scale.
fn narrow(word: vec4<u32>, kind: u32, scale: f32) -> array<vec4<f16>, 2> {
  if (kind == 0u) {
    return array<vec4<f16>, 2>(vec4<f16>(bitcast<vec4<f32>>(word) * scale), vec4<f16>());
  }
  if (kind == 1u) {
    let low = bitcast<vec4<f32>>(word << vec4<u32>(16u)) * scale;
    let high = bitcast<vec4<f32>>(word & vec4<u32>(0xffff0000u)) * scale;
    return array<vec4<f16>, 2>(
      vec4<f16>(vec4<f32>(low.x, high.x, low.y, high.y)),
      vec4<f16>(vec4<f32>(low.z, high.z, low.w, high.w)));
  }
  return array<vec4<f16>, 2>(bitcast<vec4<f16>>(word.xy), bitcast<vec4<f16>>(word.zw));
}

// Where a tap lies in x, in elements, and whether it lies inside of the image. `source` is its place in the (enlarged)
// input; it is unsigned on purpose: what lies above or to the left wraps around and is outside, too.
fn tap_address(source: vec2<u32>) -> vec2<u32> {
  let at = source >> vec2<u32>(params.upsample_shift);
  let inside = at.x < params.in_width && at.y < params.in_height;
  let address = params.x_offset + ((at.y - params.x_first_row) * params.in_width + at.x) * params.x_pitch;
  return select(vec2<u32>(params.x_offset, 0u), vec2<u32>(address, 1u), inside);
}

// The smallest scale of what a pixel's taps read. A reciprocal that is a NaN stays one.
fn pixel_scale(corner: vec2<u32>) -> vec2<f32> {
  var smallest = exp2(100.0);
  var is_finite = 1.0;
  for (var tap = 0u; tap < params.kernel_size * params.kernel_size; tap++) {
    let source = tap_address(corner + vec2<u32>(tap % params.kernel_size, tap / params.kernel_size));
    if (source.y == 1u) {
      let pair = x_scale[2u * (params.x_scale_offset + (source.x - params.x_offset) / params.x_pitch)].xy;
      smallest = min(smallest, pair.x);
      is_finite *= pair.x * pair.y;
    }
  }
  // A power of two is its exponent: 1 / 2^e is 2^-e.
  let reciprocal = bitcast<f32>((254u << 23u) - bitcast<u32>(smallest));
  return vec2<f32>(smallest, reciprocal * is_finite);
}

// Where a tap's pixels lie of which an invocation reads a share, in elements; OUTSIDE of the image and beyond the ends.
fn find_pixels(sources: ptr<function, array<u32, A_WORDS>>, index: u32, p_first: u32, tap: u32) {
  let reach = vec2<u32>(tap % params.kernel_size, tap / params.kernel_size);
  for (var i = 0u; i < A_WORDS; i++) {
    let line = (index + i * WORKGROUP) / (STEP / A_WIDTH);
    let source = tap_address(corners[line] + reach);
    let is_inside = source.y == 1u && p_first + line < params.pixels && reach.y < params.kernel_size;
    (*sources)[i] = select(OUTSIDE, source.x, is_inside);
  }
}

// Reads the share, from channel k on. Every turn of the loop is known, so that the reads need not wait for each other.
fn fetch_pixels(
  words: ptr<function, array<vec4<u32>, A_WORDS>>,
  sources: ptr<function, array<u32, A_WORDS>>,
  index: u32,
  k: u32,
) {
  for (var i = 0u; i < A_WORDS; i++) {
    let channel = k + (index + i * WORKGROUP) % (STEP / A_WIDTH) * A_WIDTH;
    (*words)[i] = vec4<u32>();
    if ((*sources)[i] != OUTSIDE && channel < 8u * params.groups) {
      (*words)[i] = x[((*sources)[i] + channel) / A_WIDTH];
    }
  }
}

fn fetch_tap_weight(words: ptr<function, array<vec4<u32>, W_WORDS>>, index: u32, n_first: u32, tap: u32, k: u32) {
  let taps = params.kernel_size * params.kernel_size;
  for (var i = 0u; i < W_WORDS; i++) {
    let at = index + i * WORKGROUP;
    let n = n_first + at / (STEP / W_WIDTH);
    let channel = k + at % (STEP / W_WIDTH) * W_WIDTH;
    (*words)[i] = vec4<u32>();
    if (n < params.cols && channel < 8u * params.groups && tap < taps) {
      (*words)[i] = weight[(8u * (params.weight_offset + (n * taps + tap) * params.groups) + channel) / W_WIDTH];
    }
  }
}

fn pixels_to_tile(words: ptr<function, array<vec4<u32>, A_WORDS>>, index: u32) {
  for (var i = 0u; i < A_WORDS; i++) {
    let at = index + i * WORKGROUP;
    let line = at / (STEP / A_WIDTH);
    a_tile[line * PITCH + at % (STEP / A_WIDTH)] = narrow((*words)[i], 0u, a_scales[line].x)[0];
  }
}

fn weight_to_tile(words: ptr<function, array<vec4<u32>, W_WORDS>>, index: u32) {
  for (var i = 0u; i < W_WORDS; i++) {
    let at = index + i * WORKGROUP;
    let line = at / (STEP / W_WIDTH);
    let place = line * PITCH + at % (STEP / W_WIDTH) * (W_WIDTH / 4u);
    let eight = narrow((*words)[i], WEIGHT_TYPE, w_scales[line].x);
    w_tile[place] = eight[0];
    if (W_WIDTH == 8u) {
      w_tile[place + 1u] = eight[1];
    }
  }
}

// Row and column in a tile of `cols` columns of cell i of the r-th row of matrices.
fn cell_of(i: u32, r: u32, cols: u32) -> vec2<u32> {
  let line = i / cols;
  return vec2<u32>(line / MATRIX_M * BLOCK_M + r * MATRIX_M + line % MATRIX_M, i % cols);
}

@compute @workgroup_size(WORKGROUP) @subgroup_size(SUBGROUP_SIZE)
fn conv2d_subgroup_matrix(
  @builtin(workgroup_id) tile: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let p_first = (tile.z * 65535u + tile.x) * TILE_M;
  let n_first = tile.y * TILE_N;
  let block_row = subgroup / SUBGROUP_COLS;
  let block_col = subgroup % SUBGROUP_COLS;

  for (var i = index; i < TILE_M; i += WORKGROUP) {
    let pixel = params.first_pixel + p_first + i;
    let row = pixel / params.out_width;
    let corner = vec2<u32>(pixel - row * params.out_width, row) * params.stride - vec2<u32>(params.padding);
    corners[i] = corner;
    a_scales[i] = vec2<f32>(1.0);
    if (p_first + i < params.pixels) {
      a_scales[i] = pixel_scale(corner);
    }
  }
  for (var i = index; i < TILE_N; i += WORKGROUP) {
    w_scales[i] = vec2<f32>(1.0);
    if (WEIGHT_TYPE != 2u && n_first + i < params.cols) {
      w_scales[i] = w_scale[2u * (params.w_scale_offset + n_first + i)].xy;
    }
  }

  workgroupBarrier();
  var sum: array<array<subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>, COLS>, ROWS>;
  var a_words: array<vec4<u32>, A_WORDS>;
  var w_words: array<vec4<u32>, W_WORDS>;
  var sources: array<u32, A_WORDS>;
  // What is read next.
  var tap = 0u;
  var k = 0u;
  find_pixels(&sources, index, p_first, tap);
  fetch_pixels(&a_words, &sources, index, k);
  fetch_tap_weight(&w_words, index, n_first, tap, k);
  while (tap < params.kernel_size * params.kernel_size) {
    k += STEP;
    if (k >= 8u * params.groups) {
      k = 0u;
      tap += 1u;
      find_pixels(&sources, index, p_first, tap);
    }
    workgroupBarrier();
    pixels_to_tile(&a_words, index);
    weight_to_tile(&w_words, index);
    workgroupBarrier();
    fetch_pixels(&a_words, &sources, index, k);
    fetch_tap_weight(&w_words, index, n_first, tap, k);
    for (var s = 0u; s < STEP / MATRIX_K; s++) {
      var left: array<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        let at = (block_row * BLOCK_M + r * MATRIX_M) * PITCH + s * MATRIX_K / 4u;
        left[r] = subgroupMatrixLoad<subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>, row_major>(&a_tile, at, PITCH);
      }
      for (var c = 0u; c < COLS; c++) {
        let at = (block_col * BLOCK_N + c * MATRIX_N) * PITCH + s * MATRIX_K / 4u;
        // A row of the weight is a column of what the taps are multiplied with.
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>, col_major>(&w_tile, at, PITCH);
        for (var r = 0u; r < ROWS; r++) {
          sum[r][c] = subgroupMatrixMultiplyAccumulate(left[r], right, sum[r][c]);
        }
      }
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLS; c++) {
      let at = block_row * MATRIX_M * SUM_PITCH + block_col * BLOCK_N + c * MATRIX_N;
      subgroupMatrixStore<row_major>(&sums, at, sum[r][c], SUM_PITCH);
    }
    workgroupBarrier();
    for (var i = index; i < SUBGROUP_ROWS * MATRIX_M * TILE_N; i += BATCH * WORKGROUP) {
      var terms: array<f32, BATCH>;
      for (var b = 0u; b < BATCH; b++) {
        let cell = cell_of(i + b * WORKGROUP, r, TILE_N);
        terms[b] = 0.0;
        if (p_first + cell.x < params.pixels && n_first + cell.y < params.cols) {
          terms[b] = bias[params.bias_offset + n_first + cell.y];
          if (ACCUMULATE) {
            terms[b] += y[params.y_offset + (p_first + cell.x) * params.y_pitch + n_first + cell.y];
          }
        }
      }
      for (var b = 0u; b < BATCH; b++) {
        let cell = cell_of(i + b * WORKGROUP, r, TILE_N);
        let p = p_first + cell.x;
        let n = n_first + cell.y;
        if (p < params.pixels && n < params.y_cols) {
          let total = sums[(i + b * WORKGROUP) / TILE_N * SUM_PITCH + cell.y];
          let value = total * a_scales[cell.x].y * w_scales[cell.y].y + terms[b];
          y[params.y_offset + p * params.y_pitch + n] = select(0.0, value, n < params.cols);
        }
      }
    }
    workgroupBarrier();
  }
}
