// matvec: y[m, n] = epilogue(sum_k a[m, k] * weight[n, k])
// with: matmul_call, a_rows
//
// The same function as matmul for few rows, where reading the weight takes the time. LANES invocations share ROWS rows
// and COLS columns, and each of them adds up a part of k. They read neighbouring 16 bytes of a row of the weight and
// use them for all of the rows. Their sums meet in workgroup memory.
// Dispatch: (row tiles, column tiles, 1); with SILU_GATE half of a tile's columns are those of up.

// tunables
const LANES: u32 = 64u;

@group(0) @binding(0) var<uniform> params: MatmulParams;
@group(0) @binding(1) var<storage, read> a: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

const SUMS: u32 = ROWS * COLS;
// One more than needed, so that what invocations write at the same time lies in different banks.
const PITCH: u32 = SUMS + 1u;
// Sums are added up in two turns: CHUNKS invocations add up CHUNK sums each, then one adds up theirs.
const CHUNKS: u32 = max(LANES / SUMS, 1u);
const CHUNK: u32 = LANES / CHUNKS;

var<workgroup> partial: array<f32, LANES * PITCH>;

@compute @workgroup_size(LANES)
fn matvec(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let m_first = tile.x * ROWS;
  let n_first = tile.y * results_of(COLS);
  let w_row = rows_of_columns(n_first, 1u, params.groups);
  var a_row: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    a_row[r] = row_at(min(m_first + r, params.rows - 1u));
  }

  var sum: array<array<f32, COLS>, ROWS>;
  for (var k = lane; k < params.groups; k += LANES) {
    var w = load_columns(w_row, k);
    for (var r = 0u; r < ROWS; r++) {
      let eight = load_a(a_row[r] + k);
      for (var c = 0u; c < COLS; c++) {
        sum[r][c] += dot(eight[0], w[c][0]) + dot(eight[1], w[c][1]);
      }
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < COLS; c++) {
      partial[lane * PITCH + r * COLS + c] = sum[r][c];
    }
  }
  workgroupBarrier();
  // An invocation may have several chunks, because there may be fewer LANES than sums.
  var chunk_sum: array<f32, (SUMS + LANES - 1u) / LANES>;
  for (var i = lane; i < SUMS * CHUNKS; i += LANES) {
    var s = 0.0;
    for (var j = 0u; j < CHUNK; j++) {
      s += partial[(i / SUMS * CHUNK + j) * PITCH + i % SUMS];
    }
    chunk_sum[i / LANES] = s;
  }
  workgroupBarrier();
  for (var i = lane; i < SUMS * CHUNKS; i += LANES) {
    partial[i] = chunk_sum[i / LANES];
  }
  workgroupBarrier();
  for (var i = 1u; i < CHUNKS; i++) {
    if (lane < SUMS) {
      partial[lane] += partial[i * SUMS + lane];
    }
  }
  workgroupBarrier();

  for (var i = lane; i < SUMS; i += LANES) {
    let r = i / COLS;
    let c = i % COLS;
    if (c < results_of(COLS) && m_first + r < params.rows) {
      let up_sum = partial[r * COLS + (c + COLS / 2u) % COLS];
      store_result(m_first + r, n_first + c, partial[i], up_sum, terms_of(m_first + r, n_first + c));
    }
  }
}
