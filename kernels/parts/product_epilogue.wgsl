// product_epilogue: what becomes of a sum of products before it is written
// with: silu
//
// The steps are bias, SiLU gate, gate and accumulation. The kernel gives gate_of and the flags HAS_BIAS, SILU_GATE,
// HAS_GATE and ACCUMULATE, which say what steps are taken. Activations are applied here and nowhere else.

// What a sum is combined with.
struct Terms { bias: f32, gate: f32, before: f32 }

// `up_sum` is the sum of the up projection that belongs to `sum`.
fn epilogue(sum: f32, up_sum: f32, terms: Terms) -> f32 {
  var result = sum;
  if (HAS_BIAS) {
    result += terms.bias;
  }
  if (SILU_GATE) {
    result = silu1(result) * up_sum;
  }
  if (HAS_GATE) {
    result *= terms.gate;
  }
  if (ACCUMULATE) {
    result += terms.before;
  }
  return result;
}

// The terms of y[m, n]; those that the flags leave out are not read.
fn terms_of(m: u32, n: u32) -> Terms {
  var terms: Terms;
  if (n < params.cols) {
    if (HAS_BIAS) {
      terms.bias = bias[params.bias_offset + n];
    }
    if (HAS_GATE) {
      terms.gate = gate_of(n);
    }
    if (ACCUMULATE) {
      terms.before = y[params.y_offset + m * params.y_pitch + n];
    }
  }
  return terms;
}
