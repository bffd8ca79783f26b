// octets: eight elements an invocation, as two vectors
// with: folded_dispatch
//
// The kernel gives apply: what is done to one vector, counted from the first element on.

fn apply_to_octet(own: Invocation) {
  let first = 2u * invocation_number(own);
  if (first < 2u * params.octets) {
    apply(first);
    apply(first + 1u);
  }
}
