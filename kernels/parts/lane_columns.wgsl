// lane_columns: the COLS columns of a lane, which are SUBGROUP_SIZE apart, so that neighbouring lanes have neighbours
// with: product

// tunables
const SUBGROUP_SIZE: u32 = 8u;

alias Columns = array<f32, COLS>;

// The first result of a lane.
fn first_result(tile: vec2<u32>, lane: u32) -> u32 {
  return tile.y * results_of(COLS) * SUBGROUP_SIZE + lane;
}

fn store_columns(m: u32, n_first: u32, sum: Columns) {
  var columns = sum;
  // Over all of the array: only then is it certain that the driver unrolls the loop.
  for (var c = 0u; c < COLS; c++) {
    if (c < results_of(COLS)) {
      let n = n_first + c * SUBGROUP_SIZE;
      store_result(m, n, columns[c], columns[(c + COLS / 2u) % COLS], terms_of(m, n));
    }
  }
}
