// attention_call: what every kernel of attention is called with: sizes, places, and what a query may see
//
// A head has GROUPS * 8 channels with its padding. With HAS_LIMIT, keys from limit[0] on are invisible. With CAUSAL,
// query i sees key j if j <= i.

// tunables
const QK_TYPE: u32 = 0u; // 0 is f32, 2 f16
const GROUPS: u32 = 16u;

override CAUSAL: bool = false;
override HAS_LIMIT: bool = false;

struct AttentionParams {
  queries: u32, first_query: u32, // of this dispatch, and where they begin in the sequence
  keys: u32, first_key: u32, // bound in this dispatch, and where they begin
  is_first: u32, // 0 continues from state and y
  is_last: u32, // 0 leaves state and unnormalised y
  head_size: u32, first_head: u32, heads_per_kv: u32, first_kv_head: u32,
  scale: f32, // 1 / sqrt(head size), times log2(e)
  q_offset: u32, q_head_stride: u32, // elements, of the first head's first query
  k_offset: u32, k_head_stride: u32,
  v_offset: u32, v_head_stride: u32,
  v_scale_offset: u32, v_scale_head_stride: u32, // rows; only where v is rounded to f16
  y_offset: u32, y_pitch: u32, // of the first query's row, column 0 of head 0
  y_cols: u32, heads: u32, // columns past the last head, up to y_cols, are zeros; heads of the whole tensor
  state_offset: u32, state_head_stride: u32,
}

// The maximum of a query that has not seen a visible key yet.
const LOWEST: f32 = -3.4e38;

// How many groups of eight channels a head has. It equals GROUPS, but compilers do not know that: drivers for
// processors would unroll loops of a known length and try to keep whole arrays in registers.
fn groups_of_head() -> u32 {
  return (params.head_size + 7u) / 8u;
}

// Where the keys and values of a head begin, in elements.
fn keys_of(head: u32) -> u32 {
  return params.k_offset + kv_head_of(head) * params.k_head_stride;
}

fn values_of(head: u32) -> u32 {
  return params.v_offset + kv_head_of(head) * params.v_head_stride;
}

// Counted among the bound heads.
fn kv_head_of(head: u32) -> u32 {
  return head / params.heads_per_kv - params.first_kv_head;
}

// How many of the bound keys may be seen by at least one of `count` queries from `first` on.
fn visible_keys(first: u32, count: u32) -> u32 {
  var visible = params.first_key + params.keys;
  if (HAS_LIMIT) {
    visible = min(visible, limit[0]);
  }
  if (CAUSAL) {
    visible = min(visible, params.first_query + min(first + count, params.queries));
  }
  return max(visible, params.first_key) - params.first_key;
}

// The first of the bound keys that a query may not see; at most `end`.
fn hidden_from(query: u32, end: u32) -> u32 {
  if (CAUSAL) {
    return min(end, max(params.first_query + query + 1u, params.first_key) - params.first_key);
  }
  return end;
}

// How many columns of y a head writes; the last head also writes the row's padding.
fn columns_of(head: u32) -> u32 {
  return select(params.head_size, params.y_cols - head * params.head_size, head == params.heads - 1u);
}

// Where a query's row of y begins for a head.
fn y_row_of(head: u32, query: u32) -> u32 {
  return params.y_offset + head * params.head_size + query * params.y_pitch;
}

// Four channels of a row of y from `channel` on; zeros past the last channel. Compilers would unroll a loop of a known
// length here and below, and take longer for it than for all the rest.
fn four_of_y(y_row: u32, channel: u32) -> vec4<f32> {
  var four = vec4<f32>();
  for (var d = channel; d < min(channel + 4u, params.head_size); d++) {
    four[d - channel] = y[y_row + d];
  }
  return four;
}

// Writes four channels of a row from `channel` on; zeros past the last channel, nothing past `columns`.
fn write_four(y_row: u32, channel: u32, columns: u32, four: vec4<f32>) {
  for (var d = channel; d < min(channel + 4u, columns); d++) {
    y[y_row + d] = select(0.0, four[d - channel], d < params.head_size);
  }
}

// A query's maximum and sum, which are kept between dispatches that each bind some of its keys.
fn kept_state(head: u32, query: u32) -> vec2<f32> {
  let at = params.state_offset + head * params.state_head_stride + 2u * query;
  return vec2<f32>(state[at], state[at + 1u]);
}

fn keep_state(head: u32, query: u32, top: f32, total: f32) {
  if (params.is_last == 0u) {
    let at = params.state_offset + head * params.state_head_stride + 2u * query;
    state[at] = top;
    state[at + 1u] = total;
  }
}
