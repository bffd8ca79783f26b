// Finding: every attacked picture of the vectors as listed there, crops and scales at random, turns, stretches, enlargement,
// videos; and nothing in pictures that hold no watermark.

import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import type { RgbImage } from "../../src/engine/images.js";
import { decodeImage } from "../../src/media/images.js";
import { type FoundWatermark, findWatermark, findWatermarkInFrames } from "../../src/watermark/find-watermark.js";
import { embedWatermark } from "../../src/watermark/watermark.js";
import { solidImage, syntheticImage } from "../media/synthetic.js";
import { numbersFrom, payloadOfHex, picture, pictures } from "./cases.js";

/** How pictures lie in the orientations of the vectors. */
const turns: Record<number, Pick<FoundWatermark, "degrees" | "mirrored">> = {
  0: { degrees: 0, mirrored: false },
  1: { degrees: 0, mirrored: true },
  5: { degrees: 270, mirrored: false },
};

const open = (image: RgbImage) => sharp(image.data, { raw: { width: image.width, height: image.height, channels: 3 } });

/** What a chain of sharp's operations makes of a picture. */
async function treated(image: RgbImage, treat: (pixels: sharp.Sharp) => sharp.Sharp): Promise<RgbImage> {
  const { data, info } = await treat(open(image)).raw().toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, data: new Uint8Array(data) };
}

async function asJpeg(image: RgbImage, quality: number): Promise<RgbImage> {
  return decodeImage(await open(image).jpeg({ quality }).toBuffer());
}

// Where nothing is found all places are searched: seconds, and more where other programs run.
const patience = { timeout: 120_000 };

describe("the vectors' pictures", patience, () => {
  // Of those without a watermark crops are looked at below: what is searched in vain is searched everywhere.
  const marked = pictures.filter(({ found }) => found);

  it.each(marked)("$file is found, payload $payload", async (listed) => {
    const result = findWatermark(await picture(listed.file));
    expect(result.found).toBe(true);
    expect(result.payload).toEqual(listed.payload === null ? undefined : payloadOfHex(listed.payload));
    if (listed.scale === 1) expect(Math.abs(result.z - listed.z)).toBeLessThanOrEqual(0.5);
    else expect(result.z).toBeGreaterThanOrEqual(0.8 * listed.z);
    expect(Math.abs(result.scale / listed.scale - 1)).toBeLessThan(0.005);
    expect({ degrees: result.degrees, mirrored: result.mirrored }).toEqual(turns[listed.orientation]);
  });
});

describe("a marked picture that was treated", patience, () => {
  const cat = picture("cat-256-marked.png");
  const flat = picture("flat-256-marked.png");

  it("is found in crops and scales at random", async () => {
    const some = fc.record({
      image: fc.constantFrom(await cat, await flat),
      width: fc.integer({ min: 200, max: 256 }),
      height: fc.integer({ min: 200, max: 256 }),
      left: fc.double({ min: 0, max: 1, noNaN: true }),
      top: fc.double({ min: 0, max: 1, noNaN: true }),
      scale: fc.double({ min: 0.65, max: 1.8, noNaN: true }),
    });
    await fc.assert(
      fc.asyncProperty(some, async ({ image, width, height, left, top, scale }) => {
        const part = {
          width,
          height,
          left: Math.floor(left * (image.width - width)),
          top: Math.floor(top * (image.height - height)),
        };
        const changed = await treated(image, (pixels) =>
          pixels.extract(part).resize(Math.round(width * scale), Math.round(height * scale), { fit: "fill" }),
        );
        const { found, scale: measured } = findWatermark(changed);
        return found && Math.abs(measured / scale - 1) < 0.02;
      }),
      { numRuns: 10, endOnFailure: true, seed: 20261202 }, // what is found is a matter of chance, though a good one
    );
  });

  it.each([0, 90, 180, 270])("is found turned by %d°, mirrored or not, and knows it", async (degrees) => {
    for (const mirrored of [false, true]) {
      const changed = await treated(await cat, (pixels) => (mirrored ? pixels.flop() : pixels));
      const result = findWatermark(await treated(changed, (pixels) => pixels.rotate(degrees)));
      expect(result).toMatchObject({ found: true, degrees, mirrored, scale: 1, payload: { kind: "text", id: 0 } });
    }
  });

  it("is found turned by 3°, and knows by how much", async () => {
    const large = await treated(await flat, (pixels) => pixels.resize(360, 360));
    const changed = await treated(large, (pixels) =>
      pixels.rotate(3).extract({ left: 25, top: 25, width: 325, height: 325 }),
    );
    const result = findWatermark(changed);
    expect(result).toMatchObject({ found: true, mirrored: false, payload: { kind: "text", id: 1 } });
    expect(result.degrees).toBeCloseTo(3, 0);
  });

  it("is found with one side longer than the other was", async () => {
    const changed = await treated(await cat, (pixels) => pixels.resize(346, 330, { fit: "fill" }));
    const result = findWatermark(changed);
    expect(result.found).toBe(true);
    expect(result.scale).toBeCloseTo(Math.sqrt((346 * 330) / 256 ** 2), 2);
  });

  it("is found enlarged beyond the scales that are searched, by its half size", async () => {
    const changed = await treated(await cat, (pixels) => pixels.resize(922, 922));
    const result = findWatermark(changed);
    expect(result.found).toBe(true);
    expect(result.scale).toBeCloseTo(3.6, 1);
    expect(result.payload).toEqual({ kind: "text", id: 0 });
  });

  it("is found by its own key alone", () => {
    const marked = embedWatermark(syntheticImage(336, 256), { payload: { kind: "text", id: 5 }, key: 7 });
    expect(findWatermark(marked, { keys: [0x44415942, 7] })).toMatchObject({
      found: true,
      key: 7,
      payload: { kind: "text", id: 5 },
    });
    expect(findWatermark(marked).found).toBe(false);
  });
});

describe("a video", patience, () => {
  const noisy = (seed: number, deviation: number) => {
    const frame = embedWatermark(syntheticImage(384, 256, seed), { payload: { kind: "video", id: 3 } });
    const next = numbersFrom(seed);
    const normal = () => Math.sqrt(-2 * Math.log(next() + 1e-9)) * Math.cos(2 * Math.PI * next());
    const data = Uint8Array.from(frame.data, (value) => Math.min(255, Math.max(0, value + deviation * normal())));
    return { ...frame, data };
  };

  it("is found in its first frame, and no other is asked for", async () => {
    let asked = 0;
    const frames = function* () {
      for (let i = 0; i < 3; i++, asked++) yield noisy(i + 1, 2);
    };
    expect(await findWatermarkInFrames(frames())).toMatchObject({ found: true, payload: { kind: "video", id: 3 } });
    expect(asked).toBe(0);
  });

  it("is found in the mean of frames that do not tell by themselves", async () => {
    const frames = Array.from({ length: 8 }, (_, i) => noisy(i + 1, 80));
    expect(findWatermark(frames[0]!).found).toBe(false);
    expect((await findWatermarkInFrames(frames)).found).toBe(true);
  });

  it("of different sizes, or of no frame, is refused", async () => {
    await expect(findWatermarkInFrames([])).rejects.toThrow("got no frame");
    const frames = [solidImage(400, 8, [9, 9, 9]), solidImage(400, 9, [9, 9, 9])];
    await expect(findWatermarkInFrames(frames)).rejects.toThrow("got frames of 400×8 and 400×9 pixels");
  });
});

describe("a picture without a watermark", patience, () => {
  it("is not one that has one: crops of pictures, as they are and as JPEG", async () => {
    const next = numbersFrom(15);
    const between = (least: number, most: number) => Math.floor(least + next() * (most - least + 1));
    for (const [file, quality] of [
      ["person-300x219.png"],
      ["cat-256.png"],
      ["flat-256.png", between(30, 95)],
    ] as const) {
      const image = await picture(file);
      const [width, height] = [between(128, 150), between(128, 150)];
      const at = { left: between(0, image.width - width), top: between(0, image.height - height), width, height };
      const crop = await treated(image, (pixels) => pixels.extract(at));
      const { found, z, payload } = findWatermark(quality ? await asJpeg(crop, quality) : crop);
      expect({ file, at, quality, found, payload }).toEqual({ file, at, quality, found: false, payload: undefined });
      expect(z).toBeLessThan(8);
    }
  });

  it.each([
    [1, 1],
    [1, 600],
    [600, 1],
    [7, 5],
  ])("of %d×%d pixels, of one colour or not, is none", (width, height) => {
    for (const image of [solidImage(width, height, [200, 30, 90]), syntheticImage(width, height)]) {
      const { found, z } = findWatermark(image);
      expect(found).toBe(false);
      expect(Number.isFinite(z)).toBe(true);
    }
  });

  it("of a wrong size, or a search without keys, is refused", () => {
    const image = solidImage(8, 8, [1, 2, 3]);
    expect(() => findWatermark({ ...image, width: 9 })).toThrow("got 192 bytes for 9×8 pixels, expected RGB");
    expect(() => findWatermark({ width: 0, height: 8, data: new Uint8Array(0) })).toThrow(
      "got a picture of 0×8 pixels",
    );
    expect(() => findWatermark(image, { keys: [] })).toThrow("got no key");
    expect(() => findWatermark(image, { keys: [-1] })).toThrow("got the key -1");
  });
});
