// Orders of latents on the host.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { latentGrid, latentsToTokens, tokensToLatents } from "../../../../src/engine/models/flux2/latents.js";
import { gaussianNoise } from "../../../../src/engine/sampling/noise.js";

describe("latents", () => {
  it("puts a position's channels side by side", () => {
    // [C = 2, h = 1, w = 3]
    expect(latentsToTokens(Float32Array.of(0, 1, 2, 10, 11, 12), 2)).toEqual(Float32Array.of(0, 10, 1, 11, 2, 12));
  });

  it("goes back and forth without loss", () => {
    const extent = fc.integer({ min: 1, max: 9 });
    fc.assert(
      fc.property(extent, extent, extent, fc.bigInt(0n, 2n ** 64n - 1n), (channels, h, w, seed) => {
        const latents = gaussianNoise(seed, [channels, h, w]);
        const tokens = latentsToTokens(latents, channels);
        for (const c of [0, channels - 1]) {
          expect(tokens[(h * w - 1) * channels + c]).toBe(latents[c * h * w + h * w - 1]);
        }
        expect(tokensToLatents(tokens, channels)).toEqual(latents);
      }),
    );
  });

  it("asserts that the channels divide the values", () => {
    expect(() => latentsToTokens(new Float32Array(10), 3)).toThrow(/expected their product/);
  });

  it("has a grid of whole latent positions", () => {
    expect(latentGrid(1360, 768, 16)).toEqual({ h: 48, w: 85 });
    expect(latentGrid(100, 40, 16)).toEqual({ h: 2, w: 6 });
  });
});
