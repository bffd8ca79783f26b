// How products, convolutions and attention are laid out on matrix units, by what the device's units multiply at once. Knows
// no kernels but those named …_subgroup_matrix, whose tunables it sets. Of the configurations only those that multiply f16
// and add in f32 are taken: sums in f16 lose too much.

import type { Device } from "../gpu/device.js";
import type { Variant } from "./variants.js";

/** Matrices [M, K]·[K, N]; a subgroup computes rows × cols of them, a workgroup subgroups[0] × subgroups[1] such blocks. */
type Layout = {
  matrix: [M: number, N: number, K: number];
  block: [rows: number, cols: number];
  subgroups: [number, number];
};

/**
 * The preferred ones first. A block of 64 × 64 sums reads each operand from workgroup memory 64 times for once that it is
 * brought there; where subgroups have fewer registers (8×16×16 are Intel's, of 16 lanes) it is smaller.
 */
const layouts: readonly Layout[] = [
  { matrix: [16, 16, 16], block: [4, 4], subgroups: [2, 2] },
  { matrix: [16, 16, 16], block: [4, 4], subgroups: [2, 1] },
  // For products with few tiles.
  { matrix: [16, 16, 16], block: [2, 2], subgroups: [2, 2] },
  { matrix: [16, 8, 16], block: [4, 8], subgroups: [2, 2] },
  { matrix: [16, 8, 16], block: [4, 8], subgroups: [2, 1] },
  { matrix: [16, 8, 16], block: [2, 4], subgroups: [2, 2] },
  { matrix: [8, 16, 16], block: [4, 2], subgroups: [2, 2] },
  // So far only a CPU driver shows these; uneven, so that what its tests compute tells rows from columns.
  { matrix: [8, 8, 8], block: [3, 2], subgroups: [2, 4] },
];

/** Elements of k that pass through workgroup memory at a time, and unused ones after them. */
const [step, padding] = [32, 8];

/**
 * Variants of the kernel matmul_subgroup_matrix, or of conv2d_subgroup_matrix, that the device's matrix units and workgroup
 * memory allow.
 */
export function matrixVariants(device: Device, operation: "matmul" | "conv2d"): Variant[] {
  return layouts.flatMap(({ matrix, block, subgroups }) => {
    const [M, N] = matrix;
    const tileRows = subgroups[0] * block[0] * M;
    const tileCols = subgroups[1] * block[1] * N;
    const bytes = 2 * (tileRows + tileCols) * (step + padding) + 4 * subgroups[0] * M * tileCols;
    // Scales of rows and columns, and where a convolution's pixels lie.
    const scaleBytes = 8 * (tileRows + tileCols) + (operation === "conv2d" ? 8 * tileRows : 0);
    const shape = offeredShape(device, { matrix, block, subgroups }, bytes + scaleBytes);
    if (!shape) return [];
    return [{ stem: `${operation}_subgroup_matrix`, tunables: { ...shape, STEP: step }, tileRows, tileCols }];
  });
}

/**
 * The same for attention_subgroup_matrix: a block's rows are of queries, its columns of keys. A subgroup keeps its
 * queries and sums besides, so blocks are smaller.
 */
const attentionLayouts: readonly Layout[] = [
  { matrix: [16, 16, 16], block: [2, 2], subgroups: [2, 2] },
  { matrix: [16, 16, 16], block: [2, 1], subgroups: [4, 2] },
  { matrix: [16, 16, 16], block: [2, 1], subgroups: [2, 2] },
  { matrix: [16, 8, 16], block: [2, 4], subgroups: [2, 2] },
  { matrix: [16, 8, 16], block: [2, 2], subgroups: [2, 2] },
  { matrix: [8, 16, 16], block: [2, 2], subgroups: [4, 2] },
  { matrix: [8, 16, 16], block: [1, 2], subgroups: [4, 2] },
  // As above; the second has two invocations to a query.
  { matrix: [8, 8, 8], block: [3, 1], subgroups: [2, 4] },
  { matrix: [8, 8, 8], block: [1, 2], subgroups: [2, 2] },
];

/** Variants of the kernel attention_subgroup_matrix for heads of `groups` times 8 channels. */
export function attentionMatrixVariants(device: Device, groups: number): Variant[] {
  return attentionLayouts.flatMap(({ matrix, block, subgroups }) => {
    const [M, N, K] = matrix;
    const tileRows = subgroups[0] * block[0] * M;
    const keys = subgroups[1] * block[1] * N;
    const wholeCols = (cols: number) => Math.ceil((groups * 8) / cols) * cols;
    const width = Math.max(wholeCols(K), wholeCols(subgroups[1] * N));
    // Keys or values, probabilities, scores; scales and maxima.
    const tileBytes = 2 * keys * (width + padding) + 2 * tileRows * (keys + padding) + 4 * tileRows * (keys + 4);
    const shape = offeredShape(device, { matrix, block, subgroups }, tileBytes + 8 * keys + 40 * tileRows + 4);
    // An invocation has at most one query.
    if (!shape || shape.WORKGROUP < tileRows) return [];
    return [{ stem: "attention_subgroup_matrix", tunables: { ...shape }, tileRows, tileCols: groups * 8 }];
  });
}

/** The tunables of a layout; undefined where the device does not offer its matrices, or has less workgroup memory. */
function offeredShape({ gpu, info, matrixConfigs }: Device, { matrix, block, subgroups }: Layout, bytes: number) {
  const [M, N, K] = matrix;
  const isOffered = matrixConfigs.some(
    (c) => c.M === M && c.N === N && c.K === K && c.componentType === "f16" && c.resultComponentType === "f32",
  );
  const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup } = gpu.limits;
  // Subgroup matrices want whole subgroups, of whatever size the driver takes.
  const WORKGROUP = subgroups[0] * subgroups[1] * info.subgroupMaxSize;
  const isTooLarge = bytes > maxComputeWorkgroupStorageSize || WORKGROUP > maxComputeInvocationsPerWorkgroup;
  if (!isOffered || isTooLarge) return undefined;
  return {
    ...{ MATRIX_M: M, MATRIX_N: N, MATRIX_K: K, ROWS: block[0], COLS: block[1], WORKGROUP },
    ...{ SUBGROUP_ROWS: subgroups[0], SUBGROUP_COLS: subgroups[1] },
  };
}
