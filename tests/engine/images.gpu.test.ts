// Images as they are handed over one by one, the previews before them, and the walk whose frames they can be.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import type { GeneratedImage, PartialImagePosition, ProgressEvent, RgbImage } from "../../src/engine/request.js";
import { slerp } from "../../src/engine/sampling/latent-walk.js";
import { gaussianNoise } from "../../src/engine/sampling/noise.js";
import { baseSource } from "./checkpoints.js";
import { draw, openShared, openTiny, pattern, signalToNoise, small, testGpu } from "./open.js";
import { resetCounts, spyOn } from "./spied-gpu.js";
import { failure, sameBytes } from "./weights/fixtures.js";

let engine: Engine;
beforeAll(async () => {
  engine = await openShared();
});
afterAll(() => engine.close());

describe("onImage", () => {
  it("takes every image, as the result would hold it, and the result holds none", async () => {
    const kept = await engine.generate({ ...small, numImages: 3 });
    const taken: GeneratedImage[] = [];
    const { images, timings } = await engine.generate({
      ...small,
      numImages: 3,
      onImage: (image, index) => {
        taken[index] = image;
      },
    });
    expect(images).toEqual([]);
    expect(timings.decode_ms).toBeGreaterThan(0);
    expect(taken.map(({ seed }) => seed)).toEqual([7n, 8n, 9n]);
    taken.forEach((image, i) => {
      expect(sameBytes(image.data, kept.images[i]!.data)).toBe(true);
    });
  });

  it("is waited for before the next image is begun", async () => {
    const events: string[] = [];
    await engine.generate({
      ...small,
      numImages: 2,
      onProgress: ({ stage, done, image }) => stage === "denoise" && events.push(`step ${done} of ${image}`),
      onImage: async (_, index) => {
        events.push(`take ${index}`);
        await new Promise((resolve) => setTimeout(resolve, 30));
        events.push(`taken ${index}`);
      },
    });
    const image = (i: number) => [`step 0 of ${i}`, `step 1 of ${i}`, `take ${i}`, `taken ${i}`];
    expect(events).toEqual([...image(0), ...image(1)]);
  });

  it("that throws fails the request and leaves the engine usable", async () => {
    const mistake = new Error("disk full");
    await expect(engine.generate({ ...small, onImage: () => Promise.reject(mistake) })).rejects.toBe(mistake);
    await expect(draw(engine)).resolves.toMatchObject({ seed: 7n });
  });

  it("is where a request can be cancelled", async () => {
    const stop = new AbortController();
    let taken = 0;
    const onImage = () => {
      taken += 1;
      stop.abort();
    };
    const request = { ...small, numImages: 3, signal: stop.signal, onImage };
    await failure(engine.generate(request), "request.cancelled");
    expect(taken).toBe(1);
  });
});

type Preview = { image: RgbImage; at: PartialImagePosition };

async function drawWithPreviews(request: Parameters<typeof draw>[1] & object, on = engine) {
  const previews: Preview[] = [];
  const { images } = await on.generate({
    ...small,
    ...request,
    onPartialImage: (image, at) => void previews.push({ image, at }),
  });
  return { images, previews };
}

describe("previews", () => {
  it.each([
    [4, 0, []],
    [4, 1, [2]],
    [4, 2, [1, 3]],
    [4, 3, [1, 2, 3]],
    [2, 3, [1]],
    [1, 3, []],
    [8, 3, [2, 4, 6]],
  ])("of %i steps, %i asked for, come after the steps %j", async (steps, partialImages, expected) => {
    const { previews } = await drawWithPreviews({ steps, partialImages });
    expect(previews.map(({ at }) => at.step)).toEqual(expected);
    expect(previews.map(({ at }) => at.index)).toEqual(expected.map((_, i) => i));
    for (const { image } of previews) expect(image).toMatchObject({ width: 32, height: 32 });
  });

  it("change nothing of the images", async () => {
    const request = { steps: 3, numImages: 2, width: 96, height: 64 };
    const plain = await engine.generate({ ...small, ...request });
    const { images, previews } = await drawWithPreviews({ ...request, partialImages: 2 });
    expect(previews.map(({ at }) => `${at.image} ${at.index}`)).toEqual(["0 0", "0 1", "1 0", "1 1"]);
    images.forEach((image, i) => {
      expect(sameBytes(image.data, plain.images[i]!.data)).toBe(true);
    });
  });

  it("with guidance and references change nothing either", async () => {
    const base = await openTiny({ source: await baseSource() });
    const request = { steps: 2, guidance: 3, negativePrompt: "blurry", references: [pattern(64, 64)] };
    const plain = await draw(base, request);
    const { images, previews } = await drawWithPreviews({ ...request, partialImages: 1 }, base);
    expect(previews).toHaveLength(1);
    expect(sameBytes(images[0]!.data, plain.data)).toBe(true);
  });

  it("show the picture that the step's velocity leads to: that of one step is the whole way", async () => {
    // The first of two steps begins where a single step does, at σ = 1 with the same velocity; what it predicts for
    // σ = 0 is what the single step gives.
    const { previews } = await drawWithPreviews({ steps: 2, partialImages: 1, width: 64, height: 64 });
    const whole = await draw(engine, { steps: 1, width: 64, height: 64 });
    expect(signalToNoise(previews[0]!.image.data, whole.data)).toBeGreaterThan(50);
  });

  it("come closer to the image", async () => {
    const { images, previews } = await drawWithPreviews({ steps: 4, partialImages: 3, width: 64, height: 64 });
    const close = previews.map(({ image }) => signalToNoise(image.data, images[0]!.data));
    expect(close).toEqual(close.toSorted((a, b) => a - b));
    expect(new Set(close).size).toBe(3);
  });

  it("make nothing on the device", async () => {
    const spy = spyOn(await testGpu());
    const spied = await openTiny({ gpu: spy.gpu });
    await draw(spied, { steps: 4 });
    const device = spy.devices[0]!;
    resetCounts(device);
    const { previews } = await drawWithPreviews({ steps: 4, partialImages: 3 }, spied);
    expect(previews).toHaveLength(3);
    expect(device.counts).toMatchObject({ buffers: 0, modules: 0, pipelines: 0, groups: 0 });
  });

  it("are waited for, and what they throw fails the request", async () => {
    const mistake = new Error("no such canvas");
    const request = { ...small, steps: 2, partialImages: 1, onPartialImage: () => Promise.reject(mistake) };
    await expect(engine.generate(request)).rejects.toBe(mistake);
  });

  it.each([-1, 4, 1.5, Number.NaN])("of the number %d are refused", async (partialImages) => {
    await failure(engine.generate({ ...small, partialImages }), "request.partial_images_invalid");
  });
});

describe("a walk", () => {
  it("draws its frames from noise between that of the seed and the next, and back", async () => {
    const { images } = await engine.generate({ ...small, walk: { frames: 6 } });
    expect(images.map(({ seed }) => seed)).toEqual(Array(6).fill(7n));
    const same = (i: number, picture: RgbImage) => expect(sameBytes(images[i]!.data, picture.data)).toBe(true);
    same(0, await draw(engine, { seed: 7n }));
    same(3, await draw(engine, { seed: 8n }));
    const shape = [1, 32, 2, 2];
    const noise = [7n, 8n].map((seed) => gaussianNoise(seed, [32, 2, 2])) as [Float32Array, Float32Array];
    const quarter = await draw(engine, { latents: { shape, data: slerp(...noise, 0.25) } });
    for (const frame of [1, 5]) {
      expect(signalToNoise(images[frame]!.data, quarter.data)).toBeGreaterThan(50);
    }
    expect(sameBytes(images[1]!.data, images[2]!.data)).toBe(false);
  });

  it("of one frame is the picture of the seed", async () => {
    const { images } = await engine.generate({ ...small, walk: { frames: 1 } });
    expect(images).toHaveLength(1);
    expect(sameBytes(images[0]!.data, (await draw(engine)).data)).toBe(true);
  });

  it("goes on from the last seed to the first", async () => {
    const { images } = await engine.generate({ ...small, seed: 2n ** 64n - 1n, walk: { frames: 2 } });
    expect(sameBytes(images[1]!.data, (await draw(engine, { seed: 0n })).data)).toBe(true);
  });

  it("reads the prompt and the references once, and counts its frames as images", async () => {
    const events: ProgressEvent[] = [];
    let frames = 0;
    const { images } = await engine.generate({
      ...small,
      walk: { frames: 3 },
      references: [pattern(64, 64)],
      onProgress: (event) => events.push(event),
      onImage: () => {
        frames += 1;
      },
    });
    expect([images.length, frames]).toEqual([0, 3]);
    const ended = (stage: string) => events.filter((event) => event.stage === stage && event.done === event.total);
    expect([ended("prompt").length, ended("references").length]).toEqual([1, 1]);
    expect(ended("decode").map(({ image, numImages }) => [image, numImages])).toEqual([0, 1, 2].map((i) => [i, 3]));
  });

  it.each([
    ["no frames", { walk: { frames: 0 } }],
    ["242 frames", { walk: { frames: 242 } }],
    ["half a frame", { walk: { frames: 1.5 } }],
    ["several images", { walk: { frames: 2 }, numImages: 2 }],
    ["latents", { walk: { frames: 2 }, latents: { shape: [1, 32, 2, 2], data: new Float32Array(128) } }],
  ])("with %s is refused", async (_, request) => {
    await failure(engine.generate({ ...small, ...request }), "request.walk_invalid");
  });
});
