// The schedule bit for bit against diffusers, and the timestep sinusoid against its `Timesteps`.

import { describe, expect, it } from "vitest";
import { schedule, timestepEmbedding } from "../../../../src/engine/models/flux2/schedule.js";
import { difference, floats, numerics, sha256 } from "../numerics.js";

describe("schedule", () => {
  it("equals diffusers' set_timesteps bit for bit over many step and token counts", () => {
    const { steps, tokens, sha256: expected } = numerics.schedule;
    const parts = steps.flatMap((n) =>
      tokens.flatMap((t) => {
        const { sigmas, timesteps, mu } = schedule(n, t);
        return [Float64Array.of(mu), sigmas, timesteps];
      }),
    );
    expect(parts.length).toBe(steps.length * tokens.length * 3);
    expect(sha256(...parts)).toBe(expected);
  });

  it.each(numerics.traces)("equals the sigmas of trace $trace", ({ steps, tokens, sigmas }) => {
    expect(schedule(steps, tokens).sigmas).toEqual(floats(sigmas));
  });

  it("falls strictly from 1 to 0", () => {
    const { sigmas, timesteps } = schedule(50, 4096);
    expect([sigmas[0], sigmas[50]]).toEqual([1, 0]);
    expect(sigmas.every((sigma, i) => i === 0 || sigma < sigmas[i - 1]!)).toBe(true);
    expect(timesteps.length).toBe(50);
    expect(timesteps[0]).toBe(1000);
  });

  it("takes one step from 1 to 0", () => {
    expect(schedule(1, 256).sigmas).toEqual(Float32Array.of(1, 0));
  });

  it("has the published values at 512×512 and 1024×1024", () => {
    expect(schedule(4, 1024).mu).toBeCloseTo(2.03068971, 8);
    [0.95808536, 0.88398188, 0.71749657].forEach((sigma, i) => {
      expect(schedule(4, 1024).sigmas[i + 1]).toBeCloseTo(sigma, 7);
    });
    expect(schedule(50, 4096).sigmas[49]).toBeCloseTo(0.133719, 6);
  });

  it("drops mu above 4300 tokens, where the step count no longer matters", () => {
    expect(schedule(4, 4300).mu).toBeGreaterThan(2.2);
    expect(schedule(4, 4301).mu).toBeLessThan(1.2);
    expect(schedule(4, 4301).mu).toBe(schedule(50, 4301).mu);
  });

  it.each([
    [0, 256],
    [2.5, 256],
    [4, 0],
    [Number.NaN, 256],
  ])("asserts its counts (%d steps, %d tokens)", (steps, tokens) => {
    expect(() => schedule(steps, tokens)).toThrow(/expected a positive integer/);
  });
});

describe("timestepEmbedding", () => {
  it.each([
    ["klein's 256 channels", numerics.embedding],
    ["an odd channel count, padded with 0", numerics.embeddingOdd],
  ])("agrees with diffusers for %s", (_, { channels, timesteps, values }) => {
    // torch's exp may round a frequency otherwise: one unit of its last place, times at most 1000
    const { max } = difference(timestepEmbedding(floats(timesteps), channels), floats(values));
    expect(max).toBeLessThan(4e-5);
  });

  it("puts cosines first", () => {
    const row = timestepEmbedding(Float32Array.of(1000), 256);
    [0.56237908, 0.78962666, 0.4399827, -0.02364524].forEach((value, i) => {
      expect(row[i]).toBeCloseTo(value, 3);
    });
    [0.82687954, 0.6135876, -0.89800625, 0.99972041].forEach((value, i) => {
      expect(row[128 + i]).toBeCloseTo(value, 3);
    });
  });

  it("gives one row per timestep", () => {
    const { timesteps } = schedule(4, 1024);
    const rows = timestepEmbedding(timesteps, 16);
    expect(rows.length).toBe(4 * 16);
    expect(rows.slice(16, 32)).toEqual(timestepEmbedding(timesteps.slice(1, 2), 16));
  });
});
