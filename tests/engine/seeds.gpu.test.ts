// The seed contract as pictures show it: what a seed decides, and that nothing else does.

import { afterAll, beforeAll, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import type { TraceTensor } from "../../src/engine/request.js";
import { gaussianNoise } from "../../src/engine/sampling/noise.js";
import { draw, openShared, openTiny, small } from "./open.js";
import { sameBytes } from "./weights/fixtures.js";

let engine: Engine;
beforeAll(async () => {
  engine = await openShared();
});
afterAll(() => engine.close());

it("the same seed gives the same bytes, again and in another engine; another seed gives others", async () => {
  const first = await draw(engine, { steps: 2 });
  expect(sameBytes(first.data, (await draw(engine, { steps: 2 })).data)).toBe(true);
  expect(sameBytes(first.data, (await draw(await openTiny(), { steps: 2 })).data)).toBe(true);
  expect(sameBytes(first.data, (await draw(engine, { steps: 2, seed: 8n })).data)).toBe(false);
});

it("a seed above 2³² is not cut to its lower half", async () => {
  const [low, high] = [await draw(engine, { seed: 5n }), await draw(engine, { seed: 5n + 2n ** 32n })];
  expect(high.seed).toBe(5n + 2n ** 32n);
  expect(sameBytes(low.data, high.data)).toBe(false);
});

it("image i of a request is the image of seed + i alone, and seeds wrap at 2⁶⁴", async () => {
  const seed = 2n ** 64n - 2n;
  const { images } = await engine.generate({ ...small, seed, numImages: 4 });
  expect(images.map((image) => image.seed)).toEqual([seed, seed + 1n, 0n, 1n]);
  for (const image of images) {
    expect(sameBytes(image.data, (await draw(engine, { seed: image.seed })).data)).toBe(true);
  }
  expect(new Set(images.map((image) => image.data.join())).size).toBe(4);
});

it("a seed that was drawn at random is told, and draws the same picture again", async () => {
  const drawn = await draw(engine, { seed: undefined });
  expect(sameBytes(drawn.data, (await draw(engine, { seed: drawn.seed })).data)).toBe(true);
});

it("a larger picture begins with the noise of a smaller one in the shared corner", async () => {
  const noiseOf = async (width: number, height: number) => {
    const written = new Map<string, TraceTensor>();
    const trace = { detail: false, write: (name: string, tensor: TraceTensor) => void written.set(name, tensor) };
    await draw(engine, { width, height, seed: 99n, trace });
    return written.get("latents.noise") as TraceTensor;
  };
  const [smaller, larger] = [await noiseOf(32, 48), await noiseOf(64, 80)];
  const [, channels, h, w] = smaller.shape as [number, number, number, number];
  expect([smaller.shape, larger.shape]).toEqual([
    [1, 32, 3, 2],
    [1, 32, 5, 4],
  ]);
  for (let c = 0; c < channels; c++) {
    for (let row = 0; row < h; row++) {
      for (let col = 0; col < w; col++) {
        expect(larger.data[(c * 5 + row) * 4 + col]).toBe(smaller.data[(c * h + row) * w + col]);
      }
    }
  }
});

it("latents that a caller gives take the place of the seed's noise", async () => {
  const fromSeed = await draw(engine, { seed: 11n });
  const data = gaussianNoise(11n, [32, 2, 2]);
  const given = await draw(engine, { seed: 4n, latents: { shape: [1, 32, 2, 2], data } });
  expect(sameBytes(given.data, fromSeed.data)).toBe(true);
});
