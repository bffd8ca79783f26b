// Position ids and rotation tables against diffusers' and transformers' own modules.

import { describe, expect, it } from "vitest";
import { ropeTable as flux2RopeTable, positionIds } from "../../../src/engine/models/flux2/rope.js";
import { ropeTable as qwen3RopeTable } from "../../../src/engine/models/qwen3/rope.js";
import { difference, floats, numerics, sha256 } from "./numerics.js";

describe("FLUX.2", () => {
  it.each(numerics.rope)(
    "ids and table equal the pipeline's for axes $axesDims, $references.length references",
    ({ axesDims, theta, textTokens, h, w, references, ...expected }) => {
      const ids = positionIds(textTokens, h, w, references);
      expect(sha256(ids)).toBe(expected.ids);
      const { cos, sin } = flux2RopeTable(ids, axesDims, theta);
      expect({ cos: sha256(cos), sin: sha256(sin) }).toEqual({ cos: expected.cos, sin: expected.sin });
    },
  );

  it("text tokens come first in the joint sequence", () => {
    const ids = positionIds(2, 1, 2, [
      { h: 2, w: 1 },
      { h: 1, w: 1 },
    ]);
    expect(Array.from({ length: ids.length / 4 }, (_, s) => [...ids.slice(s * 4, s * 4 + 4)])).toEqual([
      [0, 0, 0, 0],
      [0, 0, 0, 1],
      [0, 0, 0, 0],
      [0, 0, 1, 0],
      [10, 0, 0, 0],
      [10, 1, 0, 0],
      [20, 0, 0, 0],
    ]);
  });

  it("turns text tokens on the last axis only, output tokens on the middle two", () => {
    const { cos, sin } = flux2RopeTable(positionIds(3, 2, 2), [32, 32, 32, 32], 2000);
    const identity = (token: number, from: number, to: number) =>
      cos.slice(token * 64 + from, token * 64 + to).every((c) => c === 1) &&
      sin.slice(token * 64 + from, token * 64 + to).every((s) => s === 0);
    expect(identity(2, 0, 48)).toBe(true);
    expect(identity(2, 48, 64)).toBe(false);
    const lastOutput = 3 + 3;
    expect([identity(lastOutput, 0, 16), identity(lastOutput, 48, 64)]).toEqual([true, true]);
    expect([identity(lastOutput, 16, 32), identity(lastOutput, 32, 48)]).toEqual([false, false]);
  });

  it("asserts its axes", () => {
    expect(() => flux2RopeTable(new Int32Array(4), [32, 32, 32], 2000)).toThrow(/expected 4 positive even/);
    expect(() => flux2RopeTable(new Int32Array(4), [32, 32, 32, 31], 2000)).toThrow(/expected 4 positive even/);
    expect(() => flux2RopeTable(new Int32Array(5), [2, 2, 2, 2], 2000)).toThrow(/multiple of 4/);
  });
});

describe("Qwen3", () => {
  it.each(numerics.qwen3Rope)(
    "table equals Qwen3RotaryEmbedding's to the last place for head size $headDim",
    ({ headDim, theta, positions, ...expected }) => {
      const { cos, sin } = qwen3RopeTable(positions, headDim, theta);
      for (const [got, want] of [
        [cos, floats(expected.cos)],
        [sin, floats(expected.sin)],
      ] as const) {
        const { max, unequal } = difference(got, want);
        // float32 values below 1 are 6·10⁻⁸ apart; torch's vectorised cos and sin miss the nearest one now and then
        expect(max).toBeLessThan(6.1e-8);
        expect(unequal / want.length).toBeLessThan(0.1);
      }
    },
  );

  it("asserts its head size", () => {
    expect(() => qwen3RopeTable([0], 15, 1e6)).toThrow(/positive even/);
  });
});
