// panel_product: a tile of ROWS rows of results from panels of the weight, which are kept in private memory
// with: lane_columns, eight
//
// A load costs drivers for processors some ten instructions a lane. So a panel of the weight, DEPTH terms of each of a
// lane's COLS columns, is loaded and widened once, and all rows of the tile pass by it. A lane loads eight terms of a
// row, and broadcasts hand them to the others. The kernel gives
//
//   Cursor, first_row   the place of a lane's eight terms in a row
//   next_eight          reads them, and moves on to the next row

const DEPTH: u32 = 8u * SUBGROUP_SIZE;

alias Panel = array<Columns, DEPTH>;
// Row r's sums lie in slot r + 1 while other rows pass by.
alias Sums = array<Columns, ROWS + 1u>;

// Computes a tile, given by its row and column among the tiles, and writes it to y, which has `rows` rows. Rows of the
// weight have `groups` groups of eight elements.
fn multiply_panels(tile: vec2<u32>, lane: u32, rows: u32, groups: u32) {
  let m_first = tile.x * ROWS;
  let n_first = first_result(tile, lane);
  let count = min(ROWS, max(m_first, rows) - m_first);
  let w_row = rows_of_columns(n_first, SUBGROUP_SIZE, groups);
  var sum: Sums;
  var s: Columns;
  var panel: Panel;
  for (var g0 = 0u; g0 < groups; g0 += SUBGROUP_SIZE) {
    // A shorter last panel keeps terms of the one before; they are multiplied with zeros.
    for (var g = 0u; g < min(SUBGROUP_SIZE, groups - g0); g++) {
      for (var c = 0u; c < COLS; c++) {
        put_in_panel(&panel, g, c, load_column(w_row[c] + g0 + g, is_up(c, COLS)));
      }
    }
    var cursor = first_row(m_first, g0 + lane);
    for (var r = 0u; r < count; r++) {
      let v = next_eight(&cursor);
      take_sums(&sum, &s, r);
      add_panel(&s, &panel, v);
    }
    for (var c = 0u; c < COLS; c++) {
      sum[count][c] = s[c];
    }
  }
  for (var r = 0u; r < count; r++) {
    store_columns(m_first + r, n_first, sum[r + 1u]);
  }
}

// Puts the g-th eight terms of column c in place.
fn put_in_panel(panel: ptr<function, Panel>, g: u32, c: u32, w: array<vec4<f32>, 2>) {
  (*panel)[8u * g][c] = w[0].x;
  (*panel)[8u * g + 1u][c] = w[0].y;
  (*panel)[8u * g + 2u][c] = w[0].z;
  (*panel)[8u * g + 3u][c] = w[0].w;
  (*panel)[8u * g + 4u][c] = w[1].x;
  (*panel)[8u * g + 5u][c] = w[1].y;
  (*panel)[8u * g + 6u][c] = w[1].z;
  (*panel)[8u * g + 7u][c] = w[1].w;
}

// Puts the sums of the row before away and takes those of row r. They are put away this late, because right after its
// terms were added, the driver would move the additions behind each store's branches and keep every product in memory.
fn take_sums(sum: ptr<function, Sums>, s: ptr<function, Columns>, r: u32) {
  for (var c = 0u; c < COLS; c++) {
    (*sum)[r][c] = (*s)[c];
    (*s)[c] = (*sum)[r + 1u][c];
  }
}

// Adds eight terms, from the k-th on.
fn add_eight(s: ptr<function, Columns>, panel: ptr<function, Panel>, k: u32, v: Eight) {
  for (var c = 0u; c < COLS; c++) {
    var t = (*s)[c];
    t = fma(v[0], (*panel)[k][c], t);
    t = fma(v[1], (*panel)[k + 1u][c], t);
    t = fma(v[2], (*panel)[k + 2u][c], t);
    t = fma(v[3], (*panel)[k + 3u][c], t);
    t = fma(v[4], (*panel)[k + 4u][c], t);
    t = fma(v[5], (*panel)[k + 5u][c], t);
    t = fma(v[6], (*panel)[k + 6u][c], t);
    (*s)[c] = fma(v[7], (*panel)[k + 7u][c], t);
  }
}

// Adds the terms of a whole panel; `v` are this lane's eight elements of the row. The lane that a broadcast comes from
// must be a constant.
fn add_panel(s: ptr<function, Columns>, panel: ptr<function, Panel>, v: Eight) {
  add_eight(s, panel, 0u, Eight(
    subgroupBroadcast(v[0], 0u), subgroupBroadcast(v[1], 0u), subgroupBroadcast(v[2], 0u), subgroupBroadcast(v[3], 0u),
    subgroupBroadcast(v[4], 0u), subgroupBroadcast(v[5], 0u), subgroupBroadcast(v[6], 0u), subgroupBroadcast(v[7], 0u)));
  add_eight(s, panel, 8u, Eight(
    subgroupBroadcast(v[0], 1u), subgroupBroadcast(v[1], 1u), subgroupBroadcast(v[2], 1u), subgroupBroadcast(v[3], 1u),
    subgroupBroadcast(v[4], 1u), subgroupBroadcast(v[5], 1u), subgroupBroadcast(v[6], 1u), subgroupBroadcast(v[7], 1u)));
  add_eight(s, panel, 16u, Eight(
    subgroupBroadcast(v[0], 2u), subgroupBroadcast(v[1], 2u), subgroupBroadcast(v[2], 2u), subgroupBroadcast(v[3], 2u),
    subgroupBroadcast(v[4], 2u), subgroupBroadcast(v[5], 2u), subgroupBroadcast(v[6], 2u), subgroupBroadcast(v[7], 2u)));
  add_eight(s, panel, 24u, Eight(
    subgroupBroadcast(v[0], 3u), subgroupBroadcast(v[1], 3u), subgroupBroadcast(v[2], 3u), subgroupBroadcast(v[3], 3u),
    subgroupBroadcast(v[4], 3u), subgroupBroadcast(v[5], 3u), subgroupBroadcast(v[6], 3u), subgroupBroadcast(v[7], 3u)));
  if (SUBGROUP_SIZE > 4u) {
    add_eight(s, panel, 32u, Eight(
      subgroupBroadcast(v[0], 4u), subgroupBroadcast(v[1], 4u), subgroupBroadcast(v[2], 4u), subgroupBroadcast(v[3], 4u),
      subgroupBroadcast(v[4], 4u), subgroupBroadcast(v[5], 4u), subgroupBroadcast(v[6], 4u), subgroupBroadcast(v[7], 4u)));
    add_eight(s, panel, 40u, Eight(
      subgroupBroadcast(v[0], 5u), subgroupBroadcast(v[1], 5u), subgroupBroadcast(v[2], 5u), subgroupBroadcast(v[3], 5u),
      subgroupBroadcast(v[4], 5u), subgroupBroadcast(v[5], 5u), subgroupBroadcast(v[6], 5u), subgroupBroadcast(v[7], 5u)));
    add_eight(s, panel, 48u, Eight(
      subgroupBroadcast(v[0], 6u), subgroupBroadcast(v[1], 6u), subgroupBroadcast(v[2], 6u), subgroupBroadcast(v[3], 6u),
      subgroupBroadcast(v[4], 6u), subgroupBroadcast(v[5], 6u), subgroupBroadcast(v[6], 6u), subgroupBroadcast(v[7], 6u)));
    add_eight(s, panel, 56u, Eight(
      subgroupBroadcast(v[0], 7u), subgroupBroadcast(v[1], 7u), subgroupBroadcast(v[2], 7u), subgroupBroadcast(v[3], 7u),
      subgroupBroadcast(v[4], 7u), subgroupBroadcast(v[5], 7u), subgroupBroadcast(v[6], 7u), subgroupBroadcast(v[7], 7u)));
  }
  if (SUBGROUP_SIZE > 8u) {
    add_eight(s, panel, 64u, Eight(
      subgroupBroadcast(v[0], 8u), subgroupBroadcast(v[1], 8u), subgroupBroadcast(v[2], 8u), subgroupBroadcast(v[3], 8u),
      subgroupBroadcast(v[4], 8u), subgroupBroadcast(v[5], 8u), subgroupBroadcast(v[6], 8u), subgroupBroadcast(v[7], 8u)));
    add_eight(s, panel, 72u, Eight(
      subgroupBroadcast(v[0], 9u), subgroupBroadcast(v[1], 9u), subgroupBroadcast(v[2], 9u), subgroupBroadcast(v[3], 9u),
      subgroupBroadcast(v[4], 9u), subgroupBroadcast(v[5], 9u), subgroupBroadcast(v[6], 9u), subgroupBroadcast(v[7], 9u)));
    add_eight(s, panel, 80u, Eight(
      subgroupBroadcast(v[0], 10u), subgroupBroadcast(v[1], 10u), subgroupBroadcast(v[2], 10u), subgroupBroadcast(v[3], 10u),
      subgroupBroadcast(v[4], 10u), subgroupBroadcast(v[5], 10u), subgroupBroadcast(v[6], 10u), subgroupBroadcast(v[7], 10u)));
    add_eight(s, panel, 88u, Eight(
      subgroupBroadcast(v[0], 11u), subgroupBroadcast(v[1], 11u), subgroupBroadcast(v[2], 11u), subgroupBroadcast(v[3], 11u),
      subgroupBroadcast(v[4], 11u), subgroupBroadcast(v[5], 11u), subgroupBroadcast(v[6], 11u), subgroupBroadcast(v[7], 11u)));
    add_eight(s, panel, 96u, Eight(
      subgroupBroadcast(v[0], 12u), subgroupBroadcast(v[1], 12u), subgroupBroadcast(v[2], 12u), subgroupBroadcast(v[3], 12u),
      subgroupBroadcast(v[4], 12u), subgroupBroadcast(v[5], 12u), subgroupBroadcast(v[6], 12u), subgroupBroadcast(v[7], 12u)));
    add_eight(s, panel, 104u, Eight(
      subgroupBroadcast(v[0], 13u), subgroupBroadcast(v[1], 13u), subgroupBroadcast(v[2], 13u), subgroupBroadcast(v[3], 13u),
      subgroupBroadcast(v[4], 13u), subgroupBroadcast(v[5], 13u), subgroupBroadcast(v[6], 13u), subgroupBroadcast(v[7], 13u)));
    add_eight(s, panel, 112u, Eight(
      subgroupBroadcast(v[0], 14u), subgroupBroadcast(v[1], 14u), subgroupBroadcast(v[2], 14u), subgroupBroadcast(v[3], 14u),
      subgroupBroadcast(v[4], 14u), subgroupBroadcast(v[5], 14u), subgroupBroadcast(v[6], 14u), subgroupBroadcast(v[7], 14u)));
    add_eight(s, panel, 120u, Eight(
      subgroupBroadcast(v[0], 15u), subgroupBroadcast(v[1], 15u), subgroupBroadcast(v[2], 15u), subgroupBroadcast(v[3], 15u),
      subgroupBroadcast(v[4], 15u), subgroupBroadcast(v[5], 15u), subgroupBroadcast(v[6], 15u), subgroupBroadcast(v[7], 15u)));
  }
}
