// row_reduction: combines what the lanes of a row hold
//
// The kernel gives Partial, the type of the values, and joined, which combines two of them. A row has LANES lanes (a
// power of two), a workgroup ROWS_PER_WORKGROUP rows. With one lane a row no barrier is run, which is what CPU devices
// want.

var<workgroup> partial: array<Partial, LANES * ROWS_PER_WORKGROUP>;

// All lanes of the row get the result. Every invocation of the workgroup must come here.
fn over_row(value: Partial, lane: u32, row: u32) -> Partial {
  if (LANES == 1u) {
    return value;
  }
  let at = row * LANES + lane;
  workgroupBarrier();
  partial[at] = value;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if (lane < step) {
      partial[at] = joined(partial[at], partial[at + step]);
    }
    workgroupBarrier();
  }
  return partial[row * LANES];
}
