// The layouts of matrix units that no device here may have: what each GPU is offered first, and that the kernels' text is
// valid with every layout, where the driver has matrix units at all.

import { describe, expect, it } from "vitest";
import { type DeviceFacts, ordinaryGpu } from "../../src/engine/gpu/facts.js";
import { kernelLayout } from "../../src/engine/gpu/kernel.js";
import { attentionVariants } from "../../src/engine/ops/attention.js";
import { conv2dVariants } from "../../src/engine/ops/conv2d.js";
import { matmulVariants } from "../../src/engine/ops/matmul.js";
import { attentionMatrixVariants, matrixVariants } from "../../src/engine/ops/matrix-tiles.js";
import { type Variant, variantName } from "../../src/engine/ops/variants.js";
import { testDevice } from "../gpu.js";

type Matrix = [M: number, N: number, K: number];

/** A GPU with matrix units. */
function unitsOf(subgroups: [min: number, max: number], workgroupKiB: number, matrices: Matrix[]): DeviceFacts {
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

const nvidia: Matrix[] = [
  [16, 16, 16],
  [16, 8, 16],
];

/** Rows and columns of a workgroup's matrices: of attention, queries and keys. */
function tileOf({ tunables }: Variant): number[] {
  const { SUBGROUP_ROWS, SUBGROUP_COLS, ROWS, COLS, MATRIX_M, MATRIX_N } = tunables as Record<string, number>;
  return [SUBGROUP_ROWS! * ROWS! * MATRIX_M!, SUBGROUP_COLS! * COLS! * MATRIX_N!];
}

/** The tiles of the first choice for products and for attention, and the lanes of its subgroups. */
const gpus = [
  { gpu: "NVIDIA", device: unitsOf([32, 32], 48, nvidia), product: [128, 128], attention: [64, 64], lanes: 32 },
  { gpu: "AMD", device: unitsOf([32, 64], 64, [[16, 16, 16]]), product: [128, 128], attention: [64, 64], lanes: 32 },
  { gpu: "Arc B", device: unitsOf([16, 32], 64, [[8, 16, 16]]), product: [128, 128], attention: [32, 64], lanes: 16 },
  { gpu: "Arc A", device: unitsOf([8, 32], 64, [[8, 8, 16]]), product: [64, 64], attention: [32, 32], lanes: 8 },
];

it("layouts are not offered to subgroups of other sizes than they are made for", () => {
  for (const lanes of [8, 16, 64] as const) {
    const device = unitsOf([lanes, lanes], 64, [...nvidia, [8, 8, lanes === 8 ? 32 : 16]]);
    expect([...matrixVariants(device, "matmul"), ...attentionMatrixVariants(device, 16)], `${lanes}`).toEqual([]);
  }
});

describe.each(gpus)("$gpu", ({ device, product, attention, lanes }) => {
  const attentions = (groups: number) => attentionMatrixVariants(device, groups);

  it("takes matrix units first where operands may be f16", () => {
    const product = { rows: 64, k: 64, cols: 64, a: "f32", weight: "bf16", isGated: false } as const;
    const image = { pixels: 64, inputs: 64, outputs: 64, weight: "bf16" } as const;
    const heads = { tokens: 64, heads: 2, headSize: 128 };
    const firsts = (["f16", "f32"] as const).map((operands) => [
      matmulVariants(device, { ...product, operands })[0]?.stem,
      conv2dVariants(device, { ...image, operands })[0]?.stem,
      attentionVariants(device, { ...heads, operands })[0]?.stem,
    ]);
    const stems = ["matmul", "conv2d", "attention"];
    expect(firsts).toEqual([stems.map((stem) => `${stem}_subgroup_matrix`), stems]);
  });

  it("is offered first what its registers and its workgroup memory hold", () => {
    const tiles = [...(["matmul", "conv2d"] as const).map((o) => matrixVariants(device, o)), attentions(16)].map(
      ([first]) => first && [first.tunables.SUBGROUP_SIZE, tileOf(first)],
    );
    expect(tiles).toEqual([product, product, attention].map((tile) => [lanes, tile]));
  });

  it("has every layout in valid WGSL", async () => {
    const { device: real } = await testDevice();
    // Others refuse the text because of what it enables.
    if (real.matrixConfigs.length === 0) return expect(attentions(16)).not.toEqual([]);
    const ofTypes = (operation: "matmul" | "conv2d", types: Record<string, number>) =>
      matrixVariants(device, operation).map((variant) => ({ variant, types }));
    const all = [
      ...[0, 1, 2].flatMap((WEIGHT_TYPE) => [0, 2].flatMap((A_TYPE) => ofTypes("matmul", { A_TYPE, WEIGHT_TYPE }))),
      ...[0, 1, 2].flatMap((WEIGHT_TYPE) => ofTypes("conv2d", { WEIGHT_TYPE })),
      ...[2, 3, 16].flatMap((GROUPS) => attentions(GROUPS).map((variant) => ({ variant, types: { GROUPS } }))),
    ];
    for (const { variant, types } of all) {
      const { code } = kernelLayout(variant.stem, { ...types, ...variant.tunables });
      const { messages } = await real.gpu.createShaderModule({ code }).getCompilationInfo();
      const errors = messages.filter(({ type }) => type === "error").map(({ message }) => message);
      expect(errors, `${variantName(variant)} ${JSON.stringify(types)}`).toEqual([]);
    }
  });
});
