// tile_product: a tile of 16 ROWS x 16 COLS results, whose operands pass through workgroup memory
// with: product
//
// A workgroup has 16 x 16 invocations. Invocation (tx, ty) has rows ty, ty + 16, … and columns tx, tx + 16, … of the
// tile. STEP elements of k are in workgroup memory at a time. The kernel gives
//
//   Element, STEP   the type of the elements in workgroup memory, and their number
//   Row, row_at     what it needs to know of a row of a
//   row_group       eight elements of that row
//   column_group    eight elements of a row of the weight or of up
//   unscaled        a sum without the scales of its operands

const TILE_M: u32 = 16u * ROWS;
const TILE_N: u32 = 16u * COLS;
const LINE_GROUPS: u32 = STEP / 8u;
// How many groups of eight elements an invocation brings at a time.
const LOADS: u32 = ((TILE_M + TILE_N) * LINE_GROUPS + 255u) / 256u;

alias Group = array<vec4<Element>, 2>;
alias Sums = array<array<f32, COLS>, ROWS>;

// [k / 4][row or column], vectors of four elements of k: neighbouring invocations read neighbouring vectors.
var<workgroup> a_tile: array<vec4<Element>, TILE_M * STEP / 4u>;
var<workgroup> w_tile: array<vec4<Element>, TILE_N * STEP / 4u>;

// Computes a tile, given by its row and column among the tiles, and writes it to y, which has `rows` rows. Rows of the
// weight have `groups` groups of eight elements.
fn multiply_tiles(tile: vec2<u32>, index: u32, rows: u32, groups: u32) {
  let m_first = tile.x * TILE_M;
  let n_first = tile.y * results_of(TILE_N);
  var row: array<Row, LOADS>;
  for (var i = 0u; i < LOADS; i++) {
    row[i] = row_at(m_first + line_of(i, index));
  }
  var sum: Sums;
  for (var k = 0u; k < groups; k += LINE_GROUPS) {
    var loaded: array<Group, LOADS>;
    for (var i = 0u; i < LOADS; i++) {
      let line = line_of(i, index);
      let group = k + index % LINE_GROUPS;
      loaded[i] = Group();
      if (line < TILE_M) {
        if (m_first + line < rows && group < groups) {
          loaded[i] = row_group(row[i], group, line);
        }
      } else if (line < TILE_M + TILE_N) {
        let column = line - TILE_M;
        let n = n_first + result_of(column, TILE_N);
        if (n < params.cols && group < groups) {
          loaded[i] = column_group(n * groups + group, is_up(column, TILE_N), column);
        }
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < LOADS; i++) {
      let line = line_of(i, index);
      let at = 2u * (index % LINE_GROUPS);
      if (line < TILE_M) {
        a_tile[at * TILE_M + line] = loaded[i][0];
        a_tile[(at + 1u) * TILE_M + line] = loaded[i][1];
      } else if (line < TILE_M + TILE_N) {
        w_tile[at * TILE_N + line - TILE_M] = loaded[i][0];
        w_tile[(at + 1u) * TILE_N + line - TILE_M] = loaded[i][1];
      }
    }
    workgroupBarrier();
    add_products(&sum, index);
  }
  write_tile(&sum, index, m_first, n_first, rows);
}

// Lines of the tiles are rows of a, then columns; neighbouring invocations bring a line's groups.
fn line_of(i: u32, index: u32) -> u32 {
  return (256u * i + index) / LINE_GROUPS;
}

fn add_products(sum: ptr<function, Sums>, index: u32) {
  for (var i = 0u; i < STEP / 4u; i++) {
    var cols: array<vec4<f32>, COLS>;
    for (var c = 0u; c < COLS; c++) {
      cols[c] = vec4<f32>(w_tile[i * TILE_N + index % 16u + 16u * c]);
    }
    for (var r = 0u; r < ROWS; r++) {
      let row = vec4<f32>(a_tile[i * TILE_M + index / 16u + 16u * r]);
      for (var c = 0u; c < COLS; c++) {
        (*sum)[r][c] += dot(row, cols[c]);
      }
    }
  }
}

fn write_tile(sum: ptr<function, Sums>, index: u32, m_first: u32, n_first: u32, rows: u32) {
  for (var r = 0u; r < ROWS; r++) {
    let row = index / 16u + 16u * r;
    if (m_first + row < rows) {
      for (var c = 0u; c < results_of(COLS); c++) {
        let column = index % 16u + 16u * c;
        let terms = terms_of(m_first + row, n_first + column);
        let up_sum = unscaled((*sum)[r][(c + COLS / 2u) % COLS], row, column + TILE_N / 2u);
        store_result(m_first + row, n_first + column, unscaled((*sum)[r][c], row, column), up_sum, terms);
      }
    }
  }
}
