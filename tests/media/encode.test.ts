// Pictures to PNG, JPEG and WebP: what a decoder makes of the files, and how long writing takes.

import { PNG } from "pngjs";
import { describe, expect, it, vi } from "vitest";
import { encodeImage, type ImageFormat } from "../../src/media/encode.js";
import { decodeImage } from "../../src/media/images.js";
import { readPngText } from "./png-text.js";
import { psnr, syntheticImage } from "./synthetic.js";

describe.each<[ImageFormat, number, number[]]>([
  ["png", Infinity, [0x89, 0x50, 0x4e, 0x47]],
  ["jpeg", 36, [0xff, 0xd8, 0xff]],
  ["webp", 32, [0x52, 0x49, 0x46, 0x46]],
])("%s", (format, decibels, magic) => {
  it("is decoded to the same picture", async () => {
    const image = syntheticImage(144, 96);
    const file = await encodeImage(image, { format, quality: 95 });
    expect([...file.subarray(0, magic.length)]).toEqual(magic);
    expect(psnr(await decodeImage(file), image)).toBeGreaterThanOrEqual(decibels);
  });

  it("takes any quality", async () => {
    const image = syntheticImage(96, 96);
    const sizes: number[] = [];
    for (const quality of [0, 1, 50, 100]) sizes.push((await encodeImage(image, { format, quality })).length);
    if (format === "png") expect(new Set(sizes).size).toBe(1);
    else {
      expect(sizes[0]).toBe(sizes[1]);
      expect(sizes[1]).toBeLessThan(sizes[2]!);
      expect(sizes[2]).toBeLessThan(sizes[3]!);
    }
  });

  it("asserts the length of its pixels", async () => {
    const image = { width: 16, height: 16, data: new Uint8Array(16 * 16 * 4) };
    await expect(encodeImage(image, { format, quality: 90 })).rejects.toThrow(/expected RGB/);
  });
});

it("a JPEG keeps the full resolution of colour", async () => {
  const data = new Uint8Array(64 * 64 * 3);
  for (let i = 0; i < 64 * 64; i++) data[i * 3 + (i % 2 === 0 ? 0 : 2)] = 255; // columns of red and of blue
  const image = { width: 64, height: 64, data };
  const decoded = await decodeImage(await encodeImage(image, { format: "jpeg", quality: 100 }));
  expect(psnr(decoded, image)).toBeGreaterThan(35);
});

it("a PNG carries its text", async () => {
  const text = { parameters: "a red circle", daybreak: '{"seed":"7"}' };
  const file = await encodeImage(syntheticImage(16, 16), { format: "png", quality: 90, text });
  expect(readPngText(file)).toEqual(text);
});

it("a PNG is about as small as another writer's, in bounded time", async () => {
  for (const [side, limit_ms] of [
    [256, 50],
    [1024, 600],
  ] as const) {
    const image = syntheticImage(side, side);
    const times: number[] = [];
    let bytes = 0;
    for (let i = 0; i < 4; i++) {
      const begin = performance.now();
      bytes = (await encodeImage(image, { format: "png", quality: 90 })).length;
      times.push(performance.now() - begin);
    }
    const png = new PNG({ width: side, height: side, inputColorType: 2, inputHasAlpha: false });
    png.data = Buffer.from(image.data);
    const other = PNG.sync.write(png, { colorType: 2, inputColorType: 2, inputHasAlpha: false }).length;
    expect(bytes).toBeLessThan(other * 1.03);
    // Small ones are encoded where requests are answered. Ten times and more what a quiet machine needs.
    expect(Math.min(...times)).toBeLessThan(limit_ms);
  }
});

it("says what is missing without sharp", async () => {
  vi.doMock("sharp", () => {
    throw new Error("Cannot find package 'sharp'");
  });
  try {
    await expect(encodeImage(syntheticImage(16, 16), { format: "webp", quality: 90 })).rejects.toMatchObject({
      code: "output.format_unsupported",
      message: expect.stringMatching(/webp.*"sharp"/),
    });
    const { length } = await encodeImage(syntheticImage(16, 16), { format: "png", quality: 90 });
    expect(length).toBeGreaterThan(50);
  } finally {
    vi.doUnmock("sharp");
  }
});
