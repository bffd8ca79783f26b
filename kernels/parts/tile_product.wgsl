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
// A tile's lines are its rows of a, then its columns. Neighbouring invocations bring the groups of a line, all of them
// bring LOAD_LINES lines at a time.
const LINES: u32 = TILE_M + TILE_N;
const LOAD_LINES: u32 = 256u / LINE_GROUPS;
const LOADS: u32 = (LINES + LOAD_LINES - 1u) / LOAD_LINES;

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
  // Remainders tell the compiler that places in the tiles are inside of them, which spares it checks.
  let first_line = index % 256u / LINE_GROUPS;
  let line_group = index % LINE_GROUPS;
  // Of each load: what row_at says if the line is a row of a, where its row of the weight begins if not, and if it
  // exists.
  var row: array<Row, LOADS>;
  var column: array<u32, LOADS>;
  var is_inside: array<bool, LOADS>;
  for (var i = 0u; i < LOADS; i++) {
    let line = first_line + i * LOAD_LINES;
    let m = m_first + line;
    let n = n_first + result_of(line - TILE_M, TILE_N);
    row[i] = row_at(m);
    column[i] = n * groups;
    is_inside[i] = select(n < params.cols && line < LINES, m < rows, is_row_of_a(i, line));
  }
  var sum: Sums;
  for (var k = 0u; k < groups; k += LINE_GROUPS) {
    let group = k + line_group;
    var loaded: array<Group, LOADS>;
    for (var i = 0u; i < LOADS; i++) {
      let line = first_line + i * LOAD_LINES;
      loaded[i] = Group();
      if (is_inside[i] && group < groups) {
        if (is_row_of_a(i, line)) {
          loaded[i] = row_group(row[i], group, line);
        } else {
          loaded[i] = column_group(column[i] + group, is_up(line - TILE_M, TILE_N), line - TILE_M);
        }
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < LOADS; i++) {
      let line = first_line + i * LOAD_LINES;
      if (is_row_of_a(i, line)) {
        a_tile[2u * line_group * TILE_M + line] = loaded[i][0];
        a_tile[(2u * line_group + 1u) * TILE_M + line] = loaded[i][1];
      } else if (line < LINES) {
        w_tile[2u * line_group * TILE_N + line - TILE_M] = loaded[i][0];
        w_tile[(2u * line_group + 1u) * TILE_N + line - TILE_M] = loaded[i][1];
      }
    }
    workgroupBarrier();
    add_products(&sum, index);
  }
  write_tile(&sum, index, m_first, n_first, rows);
}

// Compilers know the answer if rows fill whole loads.
fn is_row_of_a(i: u32, line: u32) -> bool {
  return select(line < TILE_M, i < TILE_M / LOAD_LINES, TILE_M % LOAD_LINES == 0u);
}

fn add_products(sum: ptr<function, Sums>, index: u32) {
  let tx = index % 16u;
  let ty = index / 16u % 16u;
  for (var i = 0u; i < STEP / 4u; i++) {
    var cols: array<vec4<f32>, COLS>;
    for (var c = 0u; c < COLS; c++) {
      cols[c] = vec4<f32>(w_tile[i * TILE_N + tx + 16u * c]);
    }
    for (var r = 0u; r < ROWS; r++) {
      let row = vec4<f32>(a_tile[i * TILE_M + ty + 16u * r]);
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
