// How products, convolutions and attention are laid out on matrix units, by what the device's units multiply at once.
// Sets the tunables of the kernels named …_subgroup_matrix and knows no others. Takes only configurations that multiply
// f16 and add in f32, because sums in f16 lose too much.

import { type DeviceFacts, isUsable } from "../gpu/facts.js";
import type { Variant } from "./variants.js";

/** Matrices [M, K]·[K, N]; a subgroup computes rows × cols of them, a workgroup subgroups[0] × subgroups[1] such blocks. */
type Layout = {
  matrix: [M: number, N: number, K: number];
  block: [rows: number, cols: number];
  subgroups: [number, number];
  /** Of a subgroup; they share its work evenly. */
  lanes: number;
};

/**
 * The preferred ones first. A block of 64 × 64 sums multiplies an operand 64 times each time that it reads it from
 * workgroup memory, and takes half of a subgroup's registers on NVIDIA's GPUs and AMD's. Intel's subgroups have a
 * fourth of those registers (8×16×16; on the first Arcs, 8×8×16, an eighth), so their blocks are smaller, and more
 * subgroups share a tile, so that each holds less of the next step. Subgroups have the size that the units work with:
 * in larger ones drivers multiply several times, or hold operands twice.
 */
const layouts: readonly Layout[] = [
  { matrix: [16, 16, 16], block: [4, 4], subgroups: [2, 2], lanes: 32 },
  { matrix: [16, 16, 16], block: [2, 4], subgroups: [4, 1], lanes: 32 },
  // For products with few tiles.
  { matrix: [16, 16, 16], block: [2, 2], subgroups: [2, 2], lanes: 32 },
  { matrix: [16, 8, 16], block: [4, 8], subgroups: [2, 2], lanes: 32 },
  { matrix: [16, 8, 16], block: [2, 8], subgroups: [4, 1], lanes: 32 },
  { matrix: [16, 8, 16], block: [2, 4], subgroups: [2, 2], lanes: 32 },
  { matrix: [8, 16, 16], block: [4, 2], subgroups: [4, 4], lanes: 16 },
  { matrix: [8, 16, 16], block: [4, 2], subgroups: [4, 2], lanes: 16 },
  { matrix: [8, 16, 16], block: [4, 2], subgroups: [2, 2], lanes: 16 },
  { matrix: [8, 8, 16], block: [2, 2], subgroups: [4, 4], lanes: 8 },
  // So far only a CPU driver shows these. They are uneven, so that tests tell rows from columns.
  { matrix: [8, 8, 8], block: [3, 2], subgroups: [2, 4], lanes: 8 },
];

/** Elements of k that pass through workgroup memory at a time, and unused ones after them. */
const [step, padding] = [32, 8];

/**
 * Variants of the kernel matmul_subgroup_matrix, or of conv2d_subgroup_matrix, that the device's matrix units and workgroup
 * memory allow.
 */
export function matrixVariants(facts: DeviceFacts, operation: "matmul" | "conv2d"): Variant[] {
  return layouts.flatMap((layout) => {
    const { matrix, block, subgroups } = layout;
    const [M, N] = matrix;
    const tileRows = subgroups[0] * block[0] * M;
    const tileCols = subgroups[1] * block[1] * N;
    const bytes = 2 * (tileRows + tileCols) * (step + padding) + 4 * subgroups[0] * M * (tileCols + padding);
    // Scales of rows and columns, and where a convolution's pixels lie.
    const scaleBytes = 8 * (tileRows + tileCols) + (operation === "conv2d" ? 8 * tileRows : 0);
    const shape = offeredShape(facts, layout, bytes + scaleBytes);
    if (!shape) return [];
    return [{ stem: `${operation}_subgroup_matrix`, tunables: { ...shape, STEP: step }, tileRows, tileCols }];
  });
}

/**
 * The same for attention_subgroup_matrix: a block's rows are of queries, its columns of keys. Blocks are smaller,
 * because a subgroup also keeps its queries and sums. The first layout is for AMD's GPUs, the older of which keep
 * operands twice; for wide heads it takes more workgroup memory than NVIDIA's GPUs have.
 */
const attentionLayouts: readonly Layout[] = [
  { matrix: [16, 16, 16], block: [1, 2], subgroups: [4, 2], lanes: 32 },
  { matrix: [16, 16, 16], block: [2, 2], subgroups: [2, 2], lanes: 32 },
  { matrix: [16, 16, 16], block: [2, 1], subgroups: [4, 2], lanes: 32 },
  { matrix: [16, 16, 16], block: [2, 1], subgroups: [2, 2], lanes: 32 },
  { matrix: [16, 8, 16], block: [2, 4], subgroups: [2, 2], lanes: 32 },
  { matrix: [16, 8, 16], block: [2, 2], subgroups: [2, 2], lanes: 32 },
  { matrix: [8, 16, 16], block: [1, 1], subgroups: [4, 4], lanes: 16 },
  { matrix: [8, 16, 16], block: [1, 2], subgroups: [4, 2], lanes: 16 },
  { matrix: [8, 8, 16], block: [1, 1], subgroups: [4, 4], lanes: 8 },
  // As above; the second has two invocations to a query.
  { matrix: [8, 8, 8], block: [3, 1], subgroups: [2, 4], lanes: 8 },
  { matrix: [8, 8, 8], block: [1, 2], subgroups: [2, 2], lanes: 8 },
];

/** Variants of the kernel attention_subgroup_matrix for heads of `groups` times 8 channels. */
export function attentionMatrixVariants(facts: DeviceFacts, groups: number): Variant[] {
  return attentionLayouts.flatMap((layout) => {
    const { matrix, block, subgroups, lanes } = layout;
    const [M, N, K] = matrix;
    const tileRows = subgroups[0] * block[0] * M;
    const keys = subgroups[1] * block[1] * N;
    const workgroup = subgroups[0] * subgroups[1] * lanes;
    // An invocation has at most one query.
    if (workgroup < tileRows) return [];
    const parts = Math.min(Math.floor(workgroup / tileRows), 8);
    const wholeCols = (cols: number) => Math.ceil((groups * 8) / cols) * cols;
    const width = Math.max(wholeCols(K), wholeCols(subgroups[1] * N));
    // Keys or values, probabilities, scores; scales of the values; of each query two numbers and what its parts add up.
    const tileBytes =
      2 * keys * (width + padding) + 2 * tileRows * (keys + padding) + 4 * tileRows * (keys + 4 * parts);
    const bytes = tileBytes + 8 * keys + 4 * tileRows * (2 + parts) + 4;
    const shape = offeredShape(facts, layout, bytes);
    if (!shape) return [];
    return [{ stem: "attention_subgroup_matrix", tunables: { ...shape }, tileRows, tileCols: groups * 8 }];
  });
}

/** The tunables of a layout; undefined where the device lacks its matrices, its subgroups or the workgroup memory. */
function offeredShape(facts: DeviceFacts, layout: Layout, bytes: number) {
  const { matrixConfigs, subgroupMinSize, subgroupMaxSize, workgroupBytes, workgroupInvocations } = facts;
  const { matrix, block, subgroups, lanes } = layout;
  const [M, N, K] = matrix;
  const isOffered = matrixConfigs.some((c) => c.M === M && c.N === N && c.K === K && isUsable(c));
  const hasLanes = subgroupMinSize <= lanes && lanes <= subgroupMaxSize;
  const workgroup = subgroups[0] * subgroups[1] * lanes;
  const isTooLarge = bytes > workgroupBytes || workgroup > workgroupInvocations;
  // Dawn wants whole subgroups of the largest size, though the kernels ask for smaller ones.
  if (!isOffered || !hasLanes || isTooLarge || workgroup % subgroupMaxSize !== 0) return undefined;
  return {
    ...{ MATRIX_M: M, MATRIX_N: N, MATRIX_K: K, ROWS: block[0], COLS: block[1] },
    ...{ SUBGROUP_ROWS: subgroups[0], SUBGROUP_COLS: subgroups[1], SUBGROUP_SIZE: lanes },
  };
}
