// How a product is laid out on matrix units, by what the device's units multiply at once. Knows no kernel but
// matmul_subgroup_matrix, whose tunables it sets. Of the configurations only those that multiply f16 and add in f32 are
// taken: sums in f16 lose too much.

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
  { matrix: [16, 8, 16], block: [4, 8], subgroups: [2, 2] },
  { matrix: [16, 8, 16], block: [4, 8], subgroups: [2, 1] },
  { matrix: [8, 16, 16], block: [4, 2], subgroups: [2, 2] },
  // So far only a CPU driver shows these; uneven, so that what its tests compute tells rows from columns.
  { matrix: [8, 8, 8], block: [3, 2], subgroups: [2, 4] },
];

/** Elements of k that pass through workgroup memory at a time, and unused ones after them. */
const [step, padding] = [32, 8];

/** Variants of the kernel matmul_subgroup_matrix that the device's matrix units and workgroup memory allow. */
export function matrixVariants(device: Device): Variant[] {
  return layouts.flatMap(({ matrix, block, subgroups }) => {
    const [M, N, K] = matrix;
    const isOffered = device.matrixConfigs.some(
      (c) => c.M === M && c.N === N && c.K === K && c.componentType === "f16" && c.resultComponentType === "f32",
    );
    if (!isOffered) return [];
    const { maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup } = device.gpu.limits;
    const tileRows = subgroups[0] * block[0] * M;
    const tileCols = subgroups[1] * block[1] * N;
    const bytes = 2 * (tileRows + tileCols) * (step + padding) + 4 * subgroups[0] * M * tileCols;
    const scaleBytes = 8 * (tileRows + tileCols);
    // Subgroup matrices want whole subgroups, of whatever size the driver takes.
    const invocations = subgroups[0] * subgroups[1] * device.info.subgroupMaxSize;
    const isTooLarge =
      bytes + scaleBytes > maxComputeWorkgroupStorageSize || invocations > maxComputeInvocationsPerWorkgroup;
    if (isTooLarge) return [];
    const tunables = {
      ...{ MATRIX_M: M, MATRIX_N: N, MATRIX_K: K, ROWS: block[0], COLS: block[1], STEP: step },
      ...{ SUBGROUP_ROWS: subgroups[0], SUBGROUP_COLS: subgroups[1], WORKGROUP: invocations },
    };
    return [{ stem: "matmul_subgroup_matrix", tunables, tileRows, tileCols }];
  });
}
