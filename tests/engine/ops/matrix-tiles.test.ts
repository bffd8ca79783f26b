// The layouts of matrix units that no device here may have: what each GPU is offered first. Needs none of them.

import { describe, expect, it } from "vitest";
import { attentionWorkload } from "../../../src/engine/ops/attention.js";
import { convolutionWorkload } from "../../../src/engine/ops/conv2d.js";
import { matmulWorkload } from "../../../src/engine/ops/matmul.js";
import { attentionMatrixVariants, matrixVariants } from "../../../src/engine/ops/matrix-tiles.js";
import type { Variant } from "../../../src/engine/ops/variants.js";
import { gpus, nvidia, unitsOf } from "./matrix-gpus.js";

/** Rows and columns of a workgroup's matrices: of attention, queries and keys. */
function tileOf({ tunables }: Variant): number[] {
  const { SUBGROUP_ROWS, SUBGROUP_COLS, ROWS, COLS, MATRIX_M, MATRIX_N } = tunables as Record<string, number>;
  return [SUBGROUP_ROWS! * ROWS! * MATRIX_M!, SUBGROUP_COLS! * COLS! * MATRIX_N!];
}

it("layouts are not offered to subgroups of other sizes than they are made for", () => {
  for (const lanes of [8, 16, 64] as const) {
    const facts = unitsOf([lanes, lanes], 64, [...nvidia, [8, 8, lanes === 8 ? 32 : 16]]);
    expect([...matrixVariants(facts, "matmul"), ...attentionMatrixVariants(facts, 16)], `${lanes}`).toEqual([]);
  }
});

describe.each(gpus)("$gpu", ({ facts, product, attention, lanes }) => {
  const attentions = (groups: number) => attentionMatrixVariants(facts, groups);

  it("takes matrix units first where operands may be f16", () => {
    const product = { rows: 64, k: 64, cols: 64, a: "f32", weight: "bf16", isGated: false } as const;
    const image = { pixels: 64, inputs: 64, outputs: 64, weight: "bf16" } as const;
    const heads = { tokens: 64, heads: 2, headSize: 128 };
    const firsts = (["f16", "f32"] as const).map((operands) => [
      matmulWorkload({ ...product, operands }).variants(facts)[0]?.stem,
      convolutionWorkload({ ...image, operands }).variants(facts)[0]?.stem,
      attentionWorkload({ ...heads, operands }).variants(facts)[0]?.stem,
    ]);
    const stems = ["matmul", "conv2d", "attention"];
    expect(firsts).toEqual([stems.map((stem) => `${stem}_subgroup_matrix`), stems]);
  });

  it("is offered first what its registers and its workgroup memory hold", () => {
    const tiles = [...(["matmul", "conv2d"] as const).map((o) => matrixVariants(facts, o)), attentions(16)].map(
      ([first]) => first && [first.tunables.SUBGROUP_SIZE, tileOf(first)],
    );
    expect(tiles).toEqual([product, product, attention].map((tile) => [lanes, tile]));
  });
});
