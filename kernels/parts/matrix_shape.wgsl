// matrix_shape: how a workgroup divides its work among subgroups and matrix units
//
// It has SUBGROUP_ROWS x SUBGROUP_COLS subgroups; each has ROWS x COLS matrices of results, which are MATRIX_M x
// MATRIX_N. They are products of matrices of MATRIX_M x MATRIX_K and MATRIX_K x MATRIX_N.

// tunables
const MATRIX_M: u32 = 16u;
const MATRIX_N: u32 = 16u;
const MATRIX_K: u32 = 16u;
const SUBGROUP_ROWS: u32 = 2u;
const SUBGROUP_COLS: u32 = 2u;
const SUBGROUP_SIZE: u32 = 32u;

const WORKGROUP: u32 = SUBGROUP_ROWS * SUBGROUP_COLS * SUBGROUP_SIZE;
const BLOCK_M: u32 = ROWS * MATRIX_M; // of one subgroup
const TILE_M: u32 = SUBGROUP_ROWS * BLOCK_M;

alias Left = subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>;
alias Right = subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>;
alias Result = subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>;
