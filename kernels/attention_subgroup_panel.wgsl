// attention_subgroup_panel: y[i, h] = sum_j softmax_j(scale * q[h, i] . k[h / heads_per_kv, j]) * v[h / heads_per_kv, j]
// with: attention_call, eight
//
// The same function as attention, for devices whose subgroup is one SIMD register (CPU drivers). A lane has QUERIES
// rows of queries in private memory. It loads eight elements of a key or value, and broadcasts hand them to the others.
// All loads come before all sums, as in panel_product. The streaming softmax takes two keys at a time; its exponents
// are those of two. CAUSAL: key j is visible to query i if j <= i. Dispatch: (query tiles, heads, 1).

enable subgroups;

// tunables
const QUERIES: u32 = 4u;
const SUBGROUP_SIZE: u32 = 8u;

@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<storage, read> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> limit: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> state: array<f32>;

// How many times all lanes load eight elements to have two keys.
const LOADS: u32 = (2u * GROUPS + SUBGROUP_SIZE - 1u) / SUBGROUP_SIZE;

const CHANNELS: u32 = 8u * GROUPS;

alias Loaded = array<Eight, LOADS>;
// The groups of one key, then those of another; there is room for the largest GROUPS, 16.
alias Handed = array<Eight, 32>;
// An element for each of a lane's queries.
alias Vectors = array<f32, QUERIES>;
alias Rows = array<Vectors, CHANNELS>;
// [part][key]: the parts are added up in the end.
alias Scores = array<array<Vectors, 2>, 4>;

fn eight_of_q(element: u32) -> Eight {
  if (QK_TYPE == 2u) {
    return eight_halves(q[element / 8u]);
  }
  return eight_floats(bitcast<vec4<f32>>(q[element / 4u]), bitcast<vec4<f32>>(q[element / 4u + 1u]));
}

fn eight_of_k(element: u32) -> Eight {
  if (QK_TYPE == 2u) {
    return eight_halves(k[element / 8u]);
  }
  return eight_floats(bitcast<vec4<f32>>(k[element / 4u]), bitcast<vec4<f32>>(k[element / 4u + 1u]));
}

fn eight_of_v(element: u32) -> Eight {
  return eight_floats(v[element / 4u], v[element / 4u + 1u]);
}

// Adds the products of two keys with the queries to one part of the scores, in eight channels from `d` on.
fn add_scores(score: ptr<function, Scores>, part: u32, query: ptr<function, Rows>, d: u32, k0: Eight, k1: Eight) {
  for (var i = 0u; i < QUERIES; i++) {
    var s0 = (*score)[part][0][i];
    var s1 = (*score)[part][1][i];
    for (var c = 0u; c < 8u; c++) {
      s0 = fma(k0[c], (*query)[d + c][i], s0);
      s1 = fma(k1[c], (*query)[d + c][i], s1);
    }
    (*score)[part][0][i] = s0;
    (*score)[part][1][i] = s1;
  }
}

// Rescales the sums and adds the weighted values of two keys, in eight channels from `d` on.
fn add_values(
  sum: ptr<function, Rows>,
  rescale: ptr<function, Vectors>,
  score: ptr<function, Scores>,
  d: u32,
  v0: Eight,
  v1: Eight,
) {
  for (var c = 0u; c < 8u; c++) {
    for (var i = 0u; i < QUERIES; i++) {
      let before = (*sum)[d + c][i] * (*rescale)[i];
      (*sum)[d + c][i] = fma((*score)[0][1][i], v1[c], fma((*score)[0][0][i], v0[c], before));
    }
  }
}

// The lane that loads each group of two keys' rows.
const L0: u32 = 0u % SUBGROUP_SIZE;
const L1: u32 = 1u % SUBGROUP_SIZE;
const L2: u32 = 2u % SUBGROUP_SIZE;
const L3: u32 = 3u % SUBGROUP_SIZE;
const L4: u32 = 4u % SUBGROUP_SIZE;
const L5: u32 = 5u % SUBGROUP_SIZE;
const L6: u32 = 6u % SUBGROUP_SIZE;
const L7: u32 = 7u % SUBGROUP_SIZE;
const L8: u32 = 8u % SUBGROUP_SIZE;
const L9: u32 = 9u % SUBGROUP_SIZE;
const L10: u32 = 10u % SUBGROUP_SIZE;
const L11: u32 = 11u % SUBGROUP_SIZE;
const L12: u32 = 12u % SUBGROUP_SIZE;
const L13: u32 = 13u % SUBGROUP_SIZE;
const L14: u32 = 14u % SUBGROUP_SIZE;
const L15: u32 = 15u % SUBGROUP_SIZE;
const L16: u32 = 16u % SUBGROUP_SIZE;
const L17: u32 = 17u % SUBGROUP_SIZE;
const L18: u32 = 18u % SUBGROUP_SIZE;
const L19: u32 = 19u % SUBGROUP_SIZE;
const L20: u32 = 20u % SUBGROUP_SIZE;
const L21: u32 = 21u % SUBGROUP_SIZE;
const L22: u32 = 22u % SUBGROUP_SIZE;
const L23: u32 = 23u % SUBGROUP_SIZE;
const L24: u32 = 24u % SUBGROUP_SIZE;
const L25: u32 = 25u % SUBGROUP_SIZE;
const L26: u32 = 26u % SUBGROUP_SIZE;
const L27: u32 = 27u % SUBGROUP_SIZE;
const L28: u32 = 28u % SUBGROUP_SIZE;
const L29: u32 = 29u % SUBGROUP_SIZE;
const L30: u32 = 30u % SUBGROUP_SIZE;
const L31: u32 = 31u % SUBGROUP_SIZE;

// Hands what the lanes loaded of two keys to all lanes. The lane that a broadcast comes from must be a constant.
fn handed(row: ptr<function, Loaded>) -> Handed {
  var all: Handed;
  var r: Eight;
  r = (*row)[0u / SUBGROUP_SIZE % LOADS];
  all[0] = Eight(
    subgroupBroadcast(r[0], L0), subgroupBroadcast(r[1], L0), subgroupBroadcast(r[2], L0), subgroupBroadcast(r[3], L0),
    subgroupBroadcast(r[4], L0), subgroupBroadcast(r[5], L0), subgroupBroadcast(r[6], L0), subgroupBroadcast(r[7], L0));
  r = (*row)[1u / SUBGROUP_SIZE % LOADS];
  all[1] = Eight(
    subgroupBroadcast(r[0], L1), subgroupBroadcast(r[1], L1), subgroupBroadcast(r[2], L1), subgroupBroadcast(r[3], L1),
    subgroupBroadcast(r[4], L1), subgroupBroadcast(r[5], L1), subgroupBroadcast(r[6], L1), subgroupBroadcast(r[7], L1));
  if (GROUPS > 1u) {
    r = (*row)[2u / SUBGROUP_SIZE % LOADS];
    all[2] = Eight(
      subgroupBroadcast(r[0], L2), subgroupBroadcast(r[1], L2), subgroupBroadcast(r[2], L2), subgroupBroadcast(r[3], L2),
      subgroupBroadcast(r[4], L2), subgroupBroadcast(r[5], L2), subgroupBroadcast(r[6], L2), subgroupBroadcast(r[7], L2));
    r = (*row)[3u / SUBGROUP_SIZE % LOADS];
    all[3] = Eight(
      subgroupBroadcast(r[0], L3), subgroupBroadcast(r[1], L3), subgroupBroadcast(r[2], L3), subgroupBroadcast(r[3], L3),
      subgroupBroadcast(r[4], L3), subgroupBroadcast(r[5], L3), subgroupBroadcast(r[6], L3), subgroupBroadcast(r[7], L3));
  }
  if (GROUPS > 2u) {
    r = (*row)[4u / SUBGROUP_SIZE % LOADS];
    all[4] = Eight(
      subgroupBroadcast(r[0], L4), subgroupBroadcast(r[1], L4), subgroupBroadcast(r[2], L4), subgroupBroadcast(r[3], L4),
      subgroupBroadcast(r[4], L4), subgroupBroadcast(r[5], L4), subgroupBroadcast(r[6], L4), subgroupBroadcast(r[7], L4));
    r = (*row)[5u / SUBGROUP_SIZE % LOADS];
    all[5] = Eight(
      subgroupBroadcast(r[0], L5), subgroupBroadcast(r[1], L5), subgroupBroadcast(r[2], L5), subgroupBroadcast(r[3], L5),
      subgroupBroadcast(r[4], L5), subgroupBroadcast(r[5], L5), subgroupBroadcast(r[6], L5), subgroupBroadcast(r[7], L5));
    r = (*row)[6u / SUBGROUP_SIZE % LOADS];
    all[6] = Eight(
      subgroupBroadcast(r[0], L6), subgroupBroadcast(r[1], L6), subgroupBroadcast(r[2], L6), subgroupBroadcast(r[3], L6),
      subgroupBroadcast(r[4], L6), subgroupBroadcast(r[5], L6), subgroupBroadcast(r[6], L6), subgroupBroadcast(r[7], L6));
    r = (*row)[7u / SUBGROUP_SIZE % LOADS];
    all[7] = Eight(
      subgroupBroadcast(r[0], L7), subgroupBroadcast(r[1], L7), subgroupBroadcast(r[2], L7), subgroupBroadcast(r[3], L7),
      subgroupBroadcast(r[4], L7), subgroupBroadcast(r[5], L7), subgroupBroadcast(r[6], L7), subgroupBroadcast(r[7], L7));
  }
  if (GROUPS > 4u) {
    r = (*row)[8u / SUBGROUP_SIZE % LOADS];
    all[8] = Eight(
      subgroupBroadcast(r[0], L8), subgroupBroadcast(r[1], L8), subgroupBroadcast(r[2], L8), subgroupBroadcast(r[3], L8),
      subgroupBroadcast(r[4], L8), subgroupBroadcast(r[5], L8), subgroupBroadcast(r[6], L8), subgroupBroadcast(r[7], L8));
    r = (*row)[9u / SUBGROUP_SIZE % LOADS];
    all[9] = Eight(
      subgroupBroadcast(r[0], L9), subgroupBroadcast(r[1], L9), subgroupBroadcast(r[2], L9), subgroupBroadcast(r[3], L9),
      subgroupBroadcast(r[4], L9), subgroupBroadcast(r[5], L9), subgroupBroadcast(r[6], L9), subgroupBroadcast(r[7], L9));
    r = (*row)[10u / SUBGROUP_SIZE % LOADS];
    all[10] = Eight(
      subgroupBroadcast(r[0], L10), subgroupBroadcast(r[1], L10), subgroupBroadcast(r[2], L10), subgroupBroadcast(r[3], L10),
      subgroupBroadcast(r[4], L10), subgroupBroadcast(r[5], L10), subgroupBroadcast(r[6], L10), subgroupBroadcast(r[7], L10));
    r = (*row)[11u / SUBGROUP_SIZE % LOADS];
    all[11] = Eight(
      subgroupBroadcast(r[0], L11), subgroupBroadcast(r[1], L11), subgroupBroadcast(r[2], L11), subgroupBroadcast(r[3], L11),
      subgroupBroadcast(r[4], L11), subgroupBroadcast(r[5], L11), subgroupBroadcast(r[6], L11), subgroupBroadcast(r[7], L11));
    r = (*row)[12u / SUBGROUP_SIZE % LOADS];
    all[12] = Eight(
      subgroupBroadcast(r[0], L12), subgroupBroadcast(r[1], L12), subgroupBroadcast(r[2], L12), subgroupBroadcast(r[3], L12),
      subgroupBroadcast(r[4], L12), subgroupBroadcast(r[5], L12), subgroupBroadcast(r[6], L12), subgroupBroadcast(r[7], L12));
    r = (*row)[13u / SUBGROUP_SIZE % LOADS];
    all[13] = Eight(
      subgroupBroadcast(r[0], L13), subgroupBroadcast(r[1], L13), subgroupBroadcast(r[2], L13), subgroupBroadcast(r[3], L13),
      subgroupBroadcast(r[4], L13), subgroupBroadcast(r[5], L13), subgroupBroadcast(r[6], L13), subgroupBroadcast(r[7], L13));
    r = (*row)[14u / SUBGROUP_SIZE % LOADS];
    all[14] = Eight(
      subgroupBroadcast(r[0], L14), subgroupBroadcast(r[1], L14), subgroupBroadcast(r[2], L14), subgroupBroadcast(r[3], L14),
      subgroupBroadcast(r[4], L14), subgroupBroadcast(r[5], L14), subgroupBroadcast(r[6], L14), subgroupBroadcast(r[7], L14));
    r = (*row)[15u / SUBGROUP_SIZE % LOADS];
    all[15] = Eight(
      subgroupBroadcast(r[0], L15), subgroupBroadcast(r[1], L15), subgroupBroadcast(r[2], L15), subgroupBroadcast(r[3], L15),
      subgroupBroadcast(r[4], L15), subgroupBroadcast(r[5], L15), subgroupBroadcast(r[6], L15), subgroupBroadcast(r[7], L15));
  }
  if (GROUPS > 8u) {
    r = (*row)[16u / SUBGROUP_SIZE % LOADS];
    all[16] = Eight(
      subgroupBroadcast(r[0], L16), subgroupBroadcast(r[1], L16), subgroupBroadcast(r[2], L16), subgroupBroadcast(r[3], L16),
      subgroupBroadcast(r[4], L16), subgroupBroadcast(r[5], L16), subgroupBroadcast(r[6], L16), subgroupBroadcast(r[7], L16));
    r = (*row)[17u / SUBGROUP_SIZE % LOADS];
    all[17] = Eight(
      subgroupBroadcast(r[0], L17), subgroupBroadcast(r[1], L17), subgroupBroadcast(r[2], L17), subgroupBroadcast(r[3], L17),
      subgroupBroadcast(r[4], L17), subgroupBroadcast(r[5], L17), subgroupBroadcast(r[6], L17), subgroupBroadcast(r[7], L17));
    r = (*row)[18u / SUBGROUP_SIZE % LOADS];
    all[18] = Eight(
      subgroupBroadcast(r[0], L18), subgroupBroadcast(r[1], L18), subgroupBroadcast(r[2], L18), subgroupBroadcast(r[3], L18),
      subgroupBroadcast(r[4], L18), subgroupBroadcast(r[5], L18), subgroupBroadcast(r[6], L18), subgroupBroadcast(r[7], L18));
    r = (*row)[19u / SUBGROUP_SIZE % LOADS];
    all[19] = Eight(
      subgroupBroadcast(r[0], L19), subgroupBroadcast(r[1], L19), subgroupBroadcast(r[2], L19), subgroupBroadcast(r[3], L19),
      subgroupBroadcast(r[4], L19), subgroupBroadcast(r[5], L19), subgroupBroadcast(r[6], L19), subgroupBroadcast(r[7], L19));
    r = (*row)[20u / SUBGROUP_SIZE % LOADS];
    all[20] = Eight(
      subgroupBroadcast(r[0], L20), subgroupBroadcast(r[1], L20), subgroupBroadcast(r[2], L20), subgroupBroadcast(r[3], L20),
      subgroupBroadcast(r[4], L20), subgroupBroadcast(r[5], L20), subgroupBroadcast(r[6], L20), subgroupBroadcast(r[7], L20));
    r = (*row)[21u / SUBGROUP_SIZE % LOADS];
    all[21] = Eight(
      subgroupBroadcast(r[0], L21), subgroupBroadcast(r[1], L21), subgroupBroadcast(r[2], L21), subgroupBroadcast(r[3], L21),
      subgroupBroadcast(r[4], L21), subgroupBroadcast(r[5], L21), subgroupBroadcast(r[6], L21), subgroupBroadcast(r[7], L21));
    r = (*row)[22u / SUBGROUP_SIZE % LOADS];
    all[22] = Eight(
      subgroupBroadcast(r[0], L22), subgroupBroadcast(r[1], L22), subgroupBroadcast(r[2], L22), subgroupBroadcast(r[3], L22),
      subgroupBroadcast(r[4], L22), subgroupBroadcast(r[5], L22), subgroupBroadcast(r[6], L22), subgroupBroadcast(r[7], L22));
    r = (*row)[23u / SUBGROUP_SIZE % LOADS];
    all[23] = Eight(
      subgroupBroadcast(r[0], L23), subgroupBroadcast(r[1], L23), subgroupBroadcast(r[2], L23), subgroupBroadcast(r[3], L23),
      subgroupBroadcast(r[4], L23), subgroupBroadcast(r[5], L23), subgroupBroadcast(r[6], L23), subgroupBroadcast(r[7], L23));
    r = (*row)[24u / SUBGROUP_SIZE % LOADS];
    all[24] = Eight(
      subgroupBroadcast(r[0], L24), subgroupBroadcast(r[1], L24), subgroupBroadcast(r[2], L24), subgroupBroadcast(r[3], L24),
      subgroupBroadcast(r[4], L24), subgroupBroadcast(r[5], L24), subgroupBroadcast(r[6], L24), subgroupBroadcast(r[7], L24));
    r = (*row)[25u / SUBGROUP_SIZE % LOADS];
    all[25] = Eight(
      subgroupBroadcast(r[0], L25), subgroupBroadcast(r[1], L25), subgroupBroadcast(r[2], L25), subgroupBroadcast(r[3], L25),
      subgroupBroadcast(r[4], L25), subgroupBroadcast(r[5], L25), subgroupBroadcast(r[6], L25), subgroupBroadcast(r[7], L25));
    r = (*row)[26u / SUBGROUP_SIZE % LOADS];
    all[26] = Eight(
      subgroupBroadcast(r[0], L26), subgroupBroadcast(r[1], L26), subgroupBroadcast(r[2], L26), subgroupBroadcast(r[3], L26),
      subgroupBroadcast(r[4], L26), subgroupBroadcast(r[5], L26), subgroupBroadcast(r[6], L26), subgroupBroadcast(r[7], L26));
    r = (*row)[27u / SUBGROUP_SIZE % LOADS];
    all[27] = Eight(
      subgroupBroadcast(r[0], L27), subgroupBroadcast(r[1], L27), subgroupBroadcast(r[2], L27), subgroupBroadcast(r[3], L27),
      subgroupBroadcast(r[4], L27), subgroupBroadcast(r[5], L27), subgroupBroadcast(r[6], L27), subgroupBroadcast(r[7], L27));
    r = (*row)[28u / SUBGROUP_SIZE % LOADS];
    all[28] = Eight(
      subgroupBroadcast(r[0], L28), subgroupBroadcast(r[1], L28), subgroupBroadcast(r[2], L28), subgroupBroadcast(r[3], L28),
      subgroupBroadcast(r[4], L28), subgroupBroadcast(r[5], L28), subgroupBroadcast(r[6], L28), subgroupBroadcast(r[7], L28));
    r = (*row)[29u / SUBGROUP_SIZE % LOADS];
    all[29] = Eight(
      subgroupBroadcast(r[0], L29), subgroupBroadcast(r[1], L29), subgroupBroadcast(r[2], L29), subgroupBroadcast(r[3], L29),
      subgroupBroadcast(r[4], L29), subgroupBroadcast(r[5], L29), subgroupBroadcast(r[6], L29), subgroupBroadcast(r[7], L29));
    r = (*row)[30u / SUBGROUP_SIZE % LOADS];
    all[30] = Eight(
      subgroupBroadcast(r[0], L30), subgroupBroadcast(r[1], L30), subgroupBroadcast(r[2], L30), subgroupBroadcast(r[3], L30),
      subgroupBroadcast(r[4], L30), subgroupBroadcast(r[5], L30), subgroupBroadcast(r[6], L30), subgroupBroadcast(r[7], L30));
    r = (*row)[31u / SUBGROUP_SIZE % LOADS];
    all[31] = Eight(
      subgroupBroadcast(r[0], L31), subgroupBroadcast(r[1], L31), subgroupBroadcast(r[2], L31), subgroupBroadcast(r[3], L31),
      subgroupBroadcast(r[4], L31), subgroupBroadcast(r[5], L31), subgroupBroadcast(r[6], L31), subgroupBroadcast(r[7], L31));
  }
  return all;
}

// In four parts, whose additions need not wait for each other.
fn all_scores(score: ptr<function, Scores>, query: ptr<function, Rows>, keys: ptr<function, Handed>) {
  if (GROUPS > 0u) {
    add_scores(score, 0u, query, 0u % CHANNELS, (*keys)[0], (*keys)[0u + GROUPS]);
  }
  if (GROUPS > 1u) {
    add_scores(score, 1u, query, 8u % CHANNELS, (*keys)[1], (*keys)[1u + GROUPS]);
  }
  if (GROUPS > 2u) {
    add_scores(score, 2u, query, 16u % CHANNELS, (*keys)[2], (*keys)[2u + GROUPS]);
  }
  if (GROUPS > 3u) {
    add_scores(score, 3u, query, 24u % CHANNELS, (*keys)[3], (*keys)[3u + GROUPS]);
  }
  if (GROUPS > 4u) {
    add_scores(score, 0u, query, 32u % CHANNELS, (*keys)[4], (*keys)[4u + GROUPS]);
  }
  if (GROUPS > 5u) {
    add_scores(score, 1u, query, 40u % CHANNELS, (*keys)[5], (*keys)[5u + GROUPS]);
  }
  if (GROUPS > 6u) {
    add_scores(score, 2u, query, 48u % CHANNELS, (*keys)[6], (*keys)[6u + GROUPS]);
  }
  if (GROUPS > 7u) {
    add_scores(score, 3u, query, 56u % CHANNELS, (*keys)[7], (*keys)[7u + GROUPS]);
  }
  if (GROUPS > 8u) {
    add_scores(score, 0u, query, 64u % CHANNELS, (*keys)[8], (*keys)[8u + GROUPS]);
  }
  if (GROUPS > 9u) {
    add_scores(score, 1u, query, 72u % CHANNELS, (*keys)[9], (*keys)[9u + GROUPS]);
  }
  if (GROUPS > 10u) {
    add_scores(score, 2u, query, 80u % CHANNELS, (*keys)[10], (*keys)[10u + GROUPS]);
  }
  if (GROUPS > 11u) {
    add_scores(score, 3u, query, 88u % CHANNELS, (*keys)[11], (*keys)[11u + GROUPS]);
  }
  if (GROUPS > 12u) {
    add_scores(score, 0u, query, 96u % CHANNELS, (*keys)[12], (*keys)[12u + GROUPS]);
  }
  if (GROUPS > 13u) {
    add_scores(score, 1u, query, 104u % CHANNELS, (*keys)[13], (*keys)[13u + GROUPS]);
  }
  if (GROUPS > 14u) {
    add_scores(score, 2u, query, 112u % CHANNELS, (*keys)[14], (*keys)[14u + GROUPS]);
  }
  if (GROUPS > 15u) {
    add_scores(score, 3u, query, 120u % CHANNELS, (*keys)[15], (*keys)[15u + GROUPS]);
  }
  for (var i = 0u; i < QUERIES; i++) {
    for (var j = 0u; j < 2u; j++) {
      (*score)[0][j][i] = ((*score)[0][j][i] + (*score)[1][j][i]) + ((*score)[2][j][i] + (*score)[3][j][i]);
    }
  }
}

fn all_values(
  sum: ptr<function, Rows>,
  rescale: ptr<function, Vectors>,
  score: ptr<function, Scores>,
  values: ptr<function, Handed>,
) {
  if (GROUPS > 0u) {
    add_values(sum, rescale, score, 0u % CHANNELS, (*values)[0], (*values)[0u + GROUPS]);
  }
  if (GROUPS > 1u) {
    add_values(sum, rescale, score, 8u % CHANNELS, (*values)[1], (*values)[1u + GROUPS]);
  }
  if (GROUPS > 2u) {
    add_values(sum, rescale, score, 16u % CHANNELS, (*values)[2], (*values)[2u + GROUPS]);
  }
  if (GROUPS > 3u) {
    add_values(sum, rescale, score, 24u % CHANNELS, (*values)[3], (*values)[3u + GROUPS]);
  }
  if (GROUPS > 4u) {
    add_values(sum, rescale, score, 32u % CHANNELS, (*values)[4], (*values)[4u + GROUPS]);
  }
  if (GROUPS > 5u) {
    add_values(sum, rescale, score, 40u % CHANNELS, (*values)[5], (*values)[5u + GROUPS]);
  }
  if (GROUPS > 6u) {
    add_values(sum, rescale, score, 48u % CHANNELS, (*values)[6], (*values)[6u + GROUPS]);
  }
  if (GROUPS > 7u) {
    add_values(sum, rescale, score, 56u % CHANNELS, (*values)[7], (*values)[7u + GROUPS]);
  }
  if (GROUPS > 8u) {
    add_values(sum, rescale, score, 64u % CHANNELS, (*values)[8], (*values)[8u + GROUPS]);
  }
  if (GROUPS > 9u) {
    add_values(sum, rescale, score, 72u % CHANNELS, (*values)[9], (*values)[9u + GROUPS]);
  }
  if (GROUPS > 10u) {
    add_values(sum, rescale, score, 80u % CHANNELS, (*values)[10], (*values)[10u + GROUPS]);
  }
  if (GROUPS > 11u) {
    add_values(sum, rescale, score, 88u % CHANNELS, (*values)[11], (*values)[11u + GROUPS]);
  }
  if (GROUPS > 12u) {
    add_values(sum, rescale, score, 96u % CHANNELS, (*values)[12], (*values)[12u + GROUPS]);
  }
  if (GROUPS > 13u) {
    add_values(sum, rescale, score, 104u % CHANNELS, (*values)[13], (*values)[13u + GROUPS]);
  }
  if (GROUPS > 14u) {
    add_values(sum, rescale, score, 112u % CHANNELS, (*values)[14], (*values)[14u + GROUPS]);
  }
  if (GROUPS > 15u) {
    add_values(sum, rescale, score, 120u % CHANNELS, (*values)[15], (*values)[15u + GROUPS]);
  }
}

@compute @workgroup_size(SUBGROUP_SIZE)
fn attention_subgroup_panel(@builtin(workgroup_id) tile: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  let head = params.first_head + tile.y;
  let first = tile.x * QUERIES * SUBGROUP_SIZE;
  var row: array<u32, QUERIES>;
  var query: Rows;
  var sum: Rows;
  var top: Vectors;
  var total: Vectors;
  for (var i = 0u; i < QUERIES; i++) {
    row[i] = min(first + i * SUBGROUP_SIZE + lane, params.queries - 1u);
    top[i] = LOWEST;
    total[i] = 0.0;
  }
  for (var g = 0u; g < groups_of_head(); g++) {
    for (var i = 0u; i < QUERIES; i++) {
      let values = eight_of_q(params.q_offset + tile.y * params.q_head_stride + (row[i] * GROUPS + g) * 8u);
      for (var c = 0u; c < 8u; c++) {
        query[8u * g + c][i] = values[c] * params.scale;
      }
    }
  }
  if (params.is_first == 0u) {
    for (var i = 0u; i < QUERIES; i++) {
      let kept = kept_state(head, row[i]);
      top[i] = kept.x;
      total[i] = kept.y;
    }
    for (var d = 0u; d < params.head_size; d++) {
      for (var i = 0u; i < QUERIES; i++) {
        sum[d][i] = y[y_row_of(head, row[i]) + d];
      }
    }
  }

  let end = visible_keys(first, QUERIES * SUBGROUP_SIZE);
  let k_base = keys_of(head);
  let v_base = values_of(head);

  for (var j0 = 0u; j0 < end; j0 += 2u) {
    var keys: Loaded;
    var values: Loaded;
    for (var l = 0u; l < LOADS; l++) {
      // The groups of one key, then those of the other.
      let group = l * SUBGROUP_SIZE + lane;
      let at = (min(j0 + group / GROUPS, end - 1u) * GROUPS + group % GROUPS) * 8u;
      keys[l] = eight_of_k(k_base + at);
      values[l] = eight_of_v(v_base + at);
    }
    // Explicit zeros: without them the variable would be zero in the first turn of the loop only (Dawn on Vulkan).
    var score = Scores();
    var k_handed = handed(&keys);
    all_scores(&score, &query, &k_handed);
    var rescale: Vectors;
    for (var i = 0u; i < QUERIES; i++) {
      var highest = top[i];
      for (var j = 0u; j < 2u; j++) {
        score[0][j][i] = select(score[0][j][i], LOWEST, j0 + j >= hidden_from(row[i], end));
        highest = max(highest, score[0][j][i]);
      }
      rescale[i] = exp2(top[i] - highest);
      top[i] = highest;
      total[i] *= rescale[i];
      for (var j = 0u; j < 2u; j++) {
        // Hidden keys weigh nothing, also while the maximum itself is LOWEST because no key was visible yet.
        score[0][j][i] = select(exp2(score[0][j][i] - highest), 0.0, score[0][j][i] == LOWEST);
        total[i] += score[0][j][i];
      }
    }
    var v_handed = handed(&values);
    all_values(&sum, &rescale, &score, &v_handed);
  }

  for (var i = 0u; i < QUERIES; i++) {
    if (first + i * SUBGROUP_SIZE + lane < params.queries) {
      let y_row = y_row_of(head, row[i]);
      let normalise = select(1.0, 1.0 / total[i], params.is_last == 1u);
      let columns = columns_of(head);
      for (var d = 0u; d < columns; d++) {
        y[y_row + d] = select(0.0, sum[min(d, CHANNELS - 1u)][i] * normalise, d < params.head_size);
      }
      keep_state(head, row[i], top[i], total[i]);
    }
  }
}
