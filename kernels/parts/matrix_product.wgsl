// matrix_product: a tile of results on matrix units that multiply f16 and add in f32
// with: matrix_shape, tile_scales, product, narrow8
//
// STEP elements of k pass through workgroup memory at a time, as f16, while those of the next step are on their way to
// registers. Kernels cannot reach the elements of a matrix, so sums pass through workgroup memory, too, a row of
// matrices at a time. The kernel gives
//
//   Cursor, start             a place among the operands; its k goes through params.groups groups of eight elements
//   next_row                  moves on where they end
//   is_row, a_word            whether a row of a is there, and 16 bytes of it
//   weight_word               16 bytes of a row of the weight or of up

// tunables
const STEP: u32 = 32u;

const BLOCK_N: u32 = COLS * MATRIX_N;
const TILE_N: u32 = SUBGROUP_COLS * BLOCK_N;
// Neighbouring invocations read neighbouring 16 bytes. They hold so many elements, and an invocation reads so many of
// them in a step:
const A_WIDTH: u32 = select(8u, 4u, A_TYPE == 0u);
const W_WIDTH: u32 = select(8u, 4u, WEIGHT_TYPE == 0u);
const A_WORDS: u32 = TILE_M * STEP / (A_WIDTH * WORKGROUP);
const W_WORDS: u32 = TILE_N * STEP / (W_WIDTH * WORKGROUP);
const_assert A_WORDS * A_WIDTH * WORKGROUP == TILE_M * STEP && W_WORDS * W_WIDTH * WORKGROUP == TILE_N * STEP;
// Rows in workgroup memory are longer than needed, because rows that begin in the same bank would wait for each other.
// In the tiles a vector is four elements of k.
const PITCH: u32 = STEP / 4u + 2u;
const SUM_PITCH: u32 = TILE_N + 8u;
// An invocation reads the terms of so many results before it writes the first of them: reads wait for earlier writes.
const BATCH: u32 = 8u;
const_assert SUBGROUP_ROWS * MATRIX_M * (TILE_N / 2u) % (BATCH * WORKGROUP) == 0u; // half of the columns with SILU_GATE

alias AWords = array<vec4<u32>, A_WORDS>;
alias WeightWords = array<vec4<u32>, W_WORDS>;
alias Sums = array<array<Result, COLS>, ROWS>;

var<workgroup> a_tile: array<vec4<f16>, TILE_M * PITCH>;
var<workgroup> w_tile: array<vec4<f16>, TILE_N * PITCH>;
// A row of matrices of every subgroup, [SUBGROUP_ROWS * MATRIX_M, TILE_N].
var<workgroup> sums: array<f32, SUBGROUP_ROWS * MATRIX_M * SUM_PITCH>;

// Computes a tile, given by its row and column among the tiles, in so many steps, and writes it to y, which has `rows`
// rows.
fn multiply_matrices(tile: vec2<u32>, index: u32, subgroup: u32, rows: u32, steps: u32) {
  let block_row = subgroup / SUBGROUP_COLS;
  let block_col = subgroup % SUBGROUP_COLS;
  load_scales(tile, index, rows);
  var cursor = start(tile.x * TILE_M, index);
  var sum: Sums;
  var a_words: AWords;
  var w_words: WeightWords;
  fetch(&a_words, &w_words, &cursor, tile, index);
  for (var step = 0u; step < steps; step++) {
    // The scales are there, and the step before has been multiplied.
    workgroupBarrier();
    a_to_tile(&a_words, index);
    weight_to_tile(&w_words, index);
    workgroupBarrier();
    cursor.k += STEP;
    if (cursor.k >= 8u * params.groups) {
      next_row(&cursor, tile.x * TILE_M, index);
    }
    fetch(&a_words, &w_words, &cursor, tile, index);
    add_matrix_products(&sum, block_row, block_col);
  }
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLS; c++) {
      let at = block_row * MATRIX_M * SUM_PITCH + block_col * BLOCK_N + c * MATRIX_N;
      subgroupMatrixStore<row_major>(&sums, at, sum[r][c], SUM_PITCH);
    }
    workgroupBarrier();
    write_results(r, tile, index, rows);
    workgroupBarrier();
  }
}

// Reads an invocation's share of a step; zeros beyond the operands' ends. The loops have a known length, so that reads
// need not wait for each other.
fn fetch(
  a_words: ptr<function, AWords>,
  w_words: ptr<function, WeightWords>,
  cursor: ptr<function, Cursor>,
  tile: vec2<u32>,
  index: u32,
) {
  for (var i = 0u; i < A_WORDS; i++) {
    let place = place_of(i, index, A_WIDTH);
    let m = tile.x * TILE_M + place.x;
    let k = (*cursor).k + place.y * A_WIDTH;
    (*a_words)[i] = vec4<u32>();
    if (is_row(cursor, i, m) && k < 8u * params.groups) {
      (*a_words)[i] = a_word(cursor, i, m, k);
    }
  }
  for (var i = 0u; i < W_WORDS; i++) {
    let place = place_of(i, index, W_WIDTH);
    let n = tile.y * results_of(TILE_N) + result_of(place.x, TILE_N);
    let k = (*cursor).k + place.y * W_WIDTH;
    (*w_words)[i] = vec4<u32>();
    if (n < params.cols && k < 8u * params.groups) {
      (*w_words)[i] = weight_word(cursor, n, k, is_up(place.x, TILE_N));
    }
  }
}

// The i-th 16 bytes that an invocation brings, of `width` elements: the row of the tile, and which 16 bytes of that
// row.
fn place_of(i: u32, index: u32, width: u32) -> vec2<u32> {
  let at = index + i * WORKGROUP;
  return vec2<u32>(at / (STEP / width), at % (STEP / width));
}

fn a_to_tile(words: ptr<function, AWords>, index: u32) {
  for (var i = 0u; i < A_WORDS; i++) {
    let place = place_of(i, index, A_WIDTH);
    let at = place.x * PITCH + place.y * (A_WIDTH / 4u);
    let eight = narrow8((*words)[i], vec4<u32>(), A_TYPE, a_scales[place.x].x);
    a_tile[at] = eight[0];
    if (A_WIDTH == 8u) {
      a_tile[at + 1u] = eight[1];
    }
  }
}

fn weight_to_tile(words: ptr<function, WeightWords>, index: u32) {
  for (var i = 0u; i < W_WORDS; i++) {
    let place = place_of(i, index, W_WIDTH);
    let at = place.x * PITCH + place.y * (W_WIDTH / 4u);
    let eight = narrow8((*words)[i], vec4<u32>(), WEIGHT_TYPE, w_scales[place.x].x);
    w_tile[at] = eight[0];
    if (W_WIDTH == 8u) {
      w_tile[at + 1u] = eight[1];
    }
  }
}

// Adds the products of the tiles to a subgroup's sums.
fn add_matrix_products(sum: ptr<function, Sums>, block_row: u32, block_col: u32) {
  for (var s = 0u; s < STEP / MATRIX_K; s++) {
    var left: array<Left, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      let at = (block_row * BLOCK_M + r * MATRIX_M) * PITCH + s * MATRIX_K / 4u;
      left[r] = subgroupMatrixLoad<Left, row_major>(&a_tile, at, PITCH);
    }
    for (var c = 0u; c < COLS; c++) {
      let at = (block_col * BLOCK_N + c * MATRIX_N) * PITCH + s * MATRIX_K / 4u;
      // A row of the weight is a column of what a is multiplied with.
      let right = subgroupMatrixLoad<Right, col_major>(&w_tile, at, PITCH);
      for (var r = 0u; r < ROWS; r++) {
        (*sum)[r][c] = subgroupMatrixMultiplyAccumulate(left[r], right, (*sum)[r][c]);
      }
    }
  }
}

// Row and column in the tile of cell i of the r-th row of matrices, which has `cols` results.
fn cell_of(i: u32, r: u32, cols: u32) -> vec2<u32> {
  let line = i / cols;
  return vec2<u32>(line / MATRIX_M * BLOCK_M + r * MATRIX_M + line % MATRIX_M, i % cols);
}

// Writes the results of the r-th row of matrices, whose sums are in workgroup memory.
fn write_results(r: u32, tile: vec2<u32>, index: u32, rows: u32) {
  let cols = results_of(TILE_N);
  for (var i = index; i < SUBGROUP_ROWS * MATRIX_M * cols; i += BATCH * WORKGROUP) {
    var terms: array<Terms, BATCH>;
    for (var b = 0u; b < BATCH; b++) {
      let cell = cell_of(i + b * WORKGROUP, r, cols);
      let m = tile.x * TILE_M + cell.x;
      terms[b] = Terms();
      if (m < rows) {
        terms[b] = terms_of(m, tile.y * cols + cell.y);
      }
    }
    for (var b = 0u; b < BATCH; b++) {
      let cell = cell_of(i + b * WORKGROUP, r, cols);
      let m = tile.x * TILE_M + cell.x;
      let at = (i + b * WORKGROUP) / cols * SUM_PITCH + cell.y;
      if (m < rows) {
        let sum = unscaled(sums[at], cell.x, cell.y);
        let up_sum = unscaled(sums[at + TILE_N / 2u], cell.x, cell.y + TILE_N / 2u);
        store_result(m, tile.y * cols + cell.y, sum, up_sum, terms[b]);
      }
    }
  }
}
