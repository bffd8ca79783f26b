// That the kernels' text is valid with every layout of matrix units, where the driver has matrix units at all.

import { expect, it } from "vitest";
import { kernel } from "../../src/engine/gpu/kernel.js";
import { attentionMatrixVariants, matrixVariants } from "../../src/engine/ops/matrix-tiles.js";
import { variantName } from "../../src/engine/ops/variants.js";
import { gpus } from "../engine/ops/matrix-gpus.js";
import { testDevice } from "../gpu.js";

it.each(gpus)("$gpu has every layout in valid WGSL", async ({ facts }) => {
  const { device: real } = await testDevice();
  // Others refuse the text because of what it enables.
  if (real.matrixConfigs.length === 0) return expect(attentionMatrixVariants(facts, 16)).not.toEqual([]);
  const ofTypes = (operation: "matmul" | "conv2d", types: Record<string, number>) =>
    matrixVariants(facts, operation).map((variant) => ({ variant, types }));
  const all = [
    ...[0, 1, 2].flatMap((WEIGHT_TYPE) => [0, 2].flatMap((A_TYPE) => ofTypes("matmul", { A_TYPE, WEIGHT_TYPE }))),
    ...[0, 1, 2].flatMap((WEIGHT_TYPE) => ofTypes("conv2d", { WEIGHT_TYPE })),
    ...[2, 3, 16].flatMap((GROUPS) =>
      attentionMatrixVariants(facts, GROUPS).map((variant) => ({ variant, types: { GROUPS } })),
    ),
  ];
  for (const { variant, types } of all) {
    const { code } = kernel(variant.stem, { tunables: { ...types, ...variant.tunables } }).layout;
    const { messages } = await real.gpu.createShaderModule({ code }).getCompilationInfo();
    const errors = messages.filter(({ type }) => type === "error").map(({ message }) => message);
    expect(errors, `${variantName(variant)} ${JSON.stringify(types)}`).toEqual([]);
  }
});
