// Rotary position tables of the FLUX.2 transformer: four position axes (t, h, w, l) per token.
// Knows token counts and grids, not tensors on a device. The table has one entry per adjacent channel pair
// (2q, 2q + 1), unlike Qwen3's, whose rotation pairs channel halves.

import { assert } from "../../../errors.js";
import type { LatentGrid } from "./latents.js";

/** Position axes: t (which picture), h (row), w (column), l (place in the text). */
export const positionAxes = 4;

/** cos and sin, each [S, D/2] row-major. */
export type RopeTable = { cos: Float32Array; sin: Float32Array };

/**
 * Position ids [S, 4] of the joint sequence. Text tokens come first in the joint sequence, then the output's tokens,
 * then each reference's, rows outermost:
 * text i → (0, 0, 0, i); output → (0, row, col, 0); reference k → (10 + 10k, row, col, 0), counted from its own corner.
 */
export function positionIds(
  textTokens: number,
  latentH: number,
  latentW: number,
  references: readonly LatentGrid[] = [],
): Int32Array {
  const tokens = references.reduce((sum, { h, w }) => sum + h * w, textTokens + latentH * latentW);
  const ids = new Int32Array(tokens * positionAxes);
  for (let i = 0; i < textTokens; i++) ids[i * positionAxes + 3] = i;
  let at = textTokens * positionAxes;
  const picture = (t: number, h: number, w: number) => {
    for (let row = 0; row < h; row++) {
      for (let col = 0; col < w; col++) {
        ids[at] = t;
        ids[at + 1] = row;
        ids[at + 2] = col;
        at += positionAxes;
      }
    }
  };
  picture(0, latentH, latentW);
  for (const [k, { h, w }] of references.entries()) picture(10 + 10 * k, h, w);
  return ids;
}

/**
 * Rotation table: axis a turns its pairs by p_a·θ^(−2j/d_a), j < d_a/2; its pairs start at Σ_{b<a} d_b/2.
 * Float64 throughout, rounded last. Source: diffusers' Flux2PosEmbed (`get_1d_rotary_pos_embed`).
 *
 * @param ids [S, 4] from {@link positionIds}
 * @param axesDims `axes_dims_rope`: channels per axis, even, together the head size D
 * @param theta `rope_theta`
 */
export function ropeTable(ids: Int32Array, axesDims: readonly number[], theta: number): RopeTable {
  assert(
    axesDims.length === positionAxes && axesDims.every((d) => Number.isInteger(d) && d > 0 && d % 2 === 0),
    `got axes_dims_rope [${axesDims}], expected ${positionAxes} positive even numbers`,
  );
  assert(ids.length % positionAxes === 0, `got ${ids.length} position ids, expected a multiple of ${positionAxes}`);
  const pairs = axesDims.reduce((sum, d) => sum + d / 2, 0);
  const tokens = ids.length / positionAxes;
  const cos = new Float32Array(tokens * pairs);
  const sin = new Float32Array(tokens * pairs);
  let firstPair = 0;
  for (const [axis, dim] of axesDims.entries()) {
    const half = dim / 2;
    // Few distinct positions per axis, many tokens: each row of the table is computed once and copied.
    const rows = new Map<number, RopeTable>();
    for (let token = 0; token < tokens; token++) {
      const position = ids[token * positionAxes + axis]!;
      const row = rows.get(position) ?? axisRow(position, half, theta);
      rows.set(position, row);
      cos.set(row.cos, token * pairs + firstPair);
      sin.set(row.sin, token * pairs + firstPair);
    }
    firstPair += half;
  }
  return { cos, sin };
}

function axisRow(position: number, half: number, theta: number): RopeTable {
  const cos = new Float32Array(half);
  const sin = new Float32Array(half);
  for (let j = 0; j < half; j++) {
    const angle = position * (1 / theta ** (j / half));
    cos[j] = Math.cos(angle);
    sin[j] = Math.sin(angle);
  }
  return { cos, sin };
}
