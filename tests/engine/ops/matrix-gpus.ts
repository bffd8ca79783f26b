// GPUs with matrix units that no device here may have, as facts.

import { type DeviceFacts, ordinaryGpu } from "../../../src/engine/gpu/facts.js";

type Matrix = [M: number, N: number, K: number];

/** A GPU with matrix units. */
export function unitsOf(subgroups: [min: number, max: number], workgroupKiB: number, matrices: Matrix[]): DeviceFacts {
  const [subgroupMinSize, subgroupMaxSize] = subgroups;
  const matrixConfigs = matrices.map(([M, N, K]) => {
    return { M, N, K, componentType: "f16", resultComponentType: "f32" };
  });
  return {
    ...ordinaryGpu,
    limits: { ...ordinaryGpu.limits, matrixRows: 16 },
    ...{ subgroupMinSize, subgroupMaxSize, matrixConfigs },
    ...{ workgroupBytes: 1024 * workgroupKiB, workgroupInvocations: 1024 },
  };
}

export const nvidia: Matrix[] = [
  [16, 16, 16],
  [16, 8, 16],
];

/** The tiles of the first choice for products and for attention, and the lanes of its subgroups. */
export const gpus = [
  { gpu: "NVIDIA", facts: unitsOf([32, 32], 48, nvidia), product: [128, 128], attention: [64, 64], lanes: 32 },
  { gpu: "AMD", facts: unitsOf([32, 64], 64, [[16, 16, 16]]), product: [128, 128], attention: [64, 64], lanes: 32 },
  { gpu: "Arc B", facts: unitsOf([16, 32], 64, [[8, 16, 16]]), product: [128, 128], attention: [32, 64], lanes: 16 },
  { gpu: "Arc A", facts: unitsOf([8, 32], 64, [[8, 8, 16]]), product: [64, 64], attention: [32, 32], lanes: 8 },
];
