// row_lanes: which row an invocation has if LANES invocations share a row
// with: folded_dispatch
//
// LANES is a power of two; a workgroup has ROWS_PER_WORKGROUP rows. The last workgroups' rows may lie past the end.

override LANES: u32 = 64u;
override ROWS_PER_WORKGROUP: u32 = 1u;

// The invocation is lane own.local.x of this row.
fn row_of(own: Invocation) -> u32 {
  return workgroup_number(own) * ROWS_PER_WORKGROUP + own.local.y;
}

// Rows past the end repeat the last one, because all invocations must reach the barriers.
fn row_within(own: Invocation, rows: u32) -> u32 {
  return min(row_of(own), rows - 1u);
}
