// The latent walk's arithmetic: where frames stand, and what slerp keeps.

import { describe, expect, it } from "vitest";
import { slerp, walkPosition } from "../../../src/engine/sampling/latent-walk.js";
import { gaussianNoise } from "../../../src/engine/sampling/noise.js";

const norm = (v: Float32Array) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));

describe("walkPosition", () => {
  it("is the raised cosine of the frame's phase", () => {
    expect([0, 1, 2, 3, 4, 5].map((frame) => walkPosition(frame, 6))).toEqual(
      [0, 0.25, 0.75, 1, 0.75, 0.25].map((t) => expect.closeTo(t, 12)),
    );
    expect(walkPosition(0, 1)).toBe(0);
    expect(walkPosition(1, 2)).toBe(1);
  });

  it("goes and comes back the same way, never past an end", () => {
    for (const frames of [2, 3, 25, 240, 241]) {
      expect(walkPosition(0, frames)).toBe(0);
      for (let i = 1; i < frames; i++) {
        const t = walkPosition(i, frames);
        expect(t).toBeGreaterThan(0);
        expect(t).toBeLessThanOrEqual(1);
        expect(t).toBeCloseTo(walkPosition(frames - i, frames), 12);
      }
    }
  });

  it("asserts that the frame is one of them", () => {
    expect(() => walkPosition(3, 3)).toThrow(/got frame 3 of 3/);
  });
});

describe("slerp", () => {
  const [from, to] = [gaussianNoise(7n, [32, 8, 6]), gaussianNoise(8n, [32, 8, 6])];

  it("gives the ends exactly, and leaves them alone", () => {
    const [before, after] = [from.slice(), to.slice()];
    expect(slerp(from, to, 0)).toEqual(before);
    expect(slerp(from, to, 1)).toEqual(after);
    expect([from, to]).toEqual([before, after]);
  });

  it("is symmetric in its ends", () => {
    for (const t of [0.1, 0.25, 0.5]) {
      const [there, back] = [slerp(from, to, t), slerp(to, from, 1 - t)];
      there.forEach((value, i) => {
        expect(value).toBeCloseTo(back[i]!, 6);
      });
    }
  });

  it("keeps the length of vectors of one length, and turns by t of their angle", () => {
    const unit = (v: Float32Array) => v.map((x) => x / norm(v));
    const [a, b] = [unit(from), unit(to)];
    const cosine = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
    const angle = Math.acos(cosine(a, b));
    for (const t of [0.1, 0.3, 0.5, 0.9]) {
      const between = slerp(a, b, t);
      expect(norm(between)).toBeCloseTo(1, 6);
      expect(Math.acos(cosine(a, between))).toBeCloseTo(t * angle, 5);
    }
  });

  it("keeps noise as loud as noise is, which a straight line does not", () => {
    const line = from.map((a, i) => (a + to[i]!) / 2);
    expect(norm(slerp(from, to, 0.5)) / Math.sqrt(from.length)).toBeCloseTo(1, 1);
    expect(norm(line) / Math.sqrt(from.length)).toBeLessThan(0.8);
  });

  it("has an answer for parallel vectors", () => {
    const double = from.map((x) => 2 * x);
    slerp(from, double, 0.5).forEach((value, i) => {
      expect(value).toBeCloseTo(1.5 * from[i]!, 5);
    });
  });

  it("asserts equal lengths", () => {
    expect(() => slerp(from, to.subarray(1), 0.5)).toThrow(/1536 and 1535 values/);
  });
});
