// Embedding: pictures equal in every pixel to those that another implementation marked, at every size, and how little of them
// changes.

import { describe, expect, it } from "vitest";
import { embedWatermark } from "../../src/watermark/watermark.js";
import { psnr, solidImage, syntheticImage } from "../media/synthetic.js";
import { payloadOfHex, picture, pictures } from "./cases.js";

const text = { kind: "text", id: 0 } as const;

describe("a marked picture", () => {
  const marked = pictures.filter(({ from }) => from !== undefined);

  it("is among the vectors in three kinds", () => {
    expect(marked.length).toBe(3);
  });

  it.each(marked)("$file has the pixels of the vectors", async ({ file, from, embedded }) => {
    const [original, expected] = await Promise.all([picture(from!), picture(file)]);
    const before = original.data.slice();
    const result = embedWatermark(original, { payload: payloadOfHex(embedded!) });
    expect([result.width, result.height]).toEqual([expected.width, expected.height]);
    expect(result.data.findIndex((value, i) => value !== expected.data[i])).toBe(-1);
    expect(original.data).toEqual(before);
  });

  it.each([
    [1, 1],
    [1, 300],
    [300, 1],
    [3, 5],
    [127, 130],
  ])("of %d×%d pixels has its size and small changes", (width, height) => {
    const image = syntheticImage(width, height);
    const result = embedWatermark(image, { payload: text });
    expect([result.width, result.height, result.data.length]).toEqual([width, height, width * height * 3]);
    const most = result.data.reduce((most, value, i) => Math.max(most, Math.abs(value - image.data[i]!)), 0);
    expect(most).toBeLessThanOrEqual(Math.ceil(5 * 4.7));
  });

  it("is the same where it lies in a larger one, up to the edges' reach", () => {
    const large = syntheticImage(256, 200);
    const small = { width: 256, height: 150, data: large.data.subarray(0, 256 * 150 * 3) };
    const [one, other] = [large, small].map((image) => embedWatermark(image, { payload: text }).data);
    const rows = 150 - 13; // 5 to the quiet place, 4 and 3 of the two boxes, 1 for rounding
    expect(one!.subarray(0, 256 * rows * 3)).toEqual(other!.subarray(0, 256 * rows * 3));
  });

  it("changes by the least where it is flat, and stays within 0 … 255", () => {
    const grey = solidImage(256, 256, [100, 120, 140]);
    const result = embedWatermark(grey, { payload: text });
    const changes = result.data.map((value, i) => (value - grey.data[i]! + 128) & 255);
    const deviation = Math.sqrt(changes.reduce((sum, value) => sum + (value - 128) ** 2, 0) / changes.length);
    expect(deviation).toBeGreaterThan(0.9);
    expect(deviation).toBeLessThan(1); // 0.9 and what rounding adds
    for (const level of [0, 255]) {
      const { data } = embedWatermark(solidImage(128, 128, [level, level, level]), { payload: text });
      expect(data.every((value) => Math.abs(value - level) <= 5)).toBe(true);
      expect(data.some((value) => value !== level)).toBe(true);
    }
  });

  it("changes with key and payload", () => {
    const image = syntheticImage(128, 128);
    const results = [
      embedWatermark(image, { payload: text }),
      embedWatermark(image, { payload: { kind: "video", id: 0 } }),
      embedWatermark(image, { payload: text, key: 7 }),
    ];
    expect(new Set(results.map(({ data }) => data.join())).size).toBe(3);
    for (const result of results) expect(psnr(image, result)).toBeGreaterThan(35);
  });

  it("of too few bytes is refused", () => {
    const image = { width: 4, height: 4, data: new Uint8Array(47) };
    expect(() => embedWatermark(image, { payload: text })).toThrow("got 47 bytes for 4×4 pixels, expected RGB");
  });
});
