// findings: what health finds in some elements: (how many are not finite, the least, the greatest, how many)
// with: row_reduction
//
// The least and the greatest are integers that are ordered like the numbers.

alias Partial = vec4<u32>;

const NOTHING = Partial(0u, 0xffffffffu, 0u, 0u);

// Counts add up, the least and the greatest remain.
fn joined(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
  return Partial(a.x + b.x, min(a.y, b.y), max(a.z, b.z), a.w + b.w);
}
