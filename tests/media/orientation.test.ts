// Pictures that a camera stored sideways stand upright once they are decoded: all eight values of EXIF in all three
// formats, however the notes are written, and the upright size decides what follows.

import { readFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { referenceLimits as limits } from "../../src/engine/models/flux2/reference-image.js";
import type { RgbImage } from "../../src/engine/request.js";
import { decodeImage, imageSize } from "../../src/media/images.js";
import { encodePng } from "../../src/media/png.js";
import { anyReferenceSize, decodeAnyReference, decodeReference } from "../../src/media/references.js";
import { clocked } from "../clocked.js";
import { syntheticImage } from "./synthetic.js";

const stored = syntheticImage(90, 70);
const orientations = [1, 2, 3, 4, 5, 6, 7, 8] as const;
type Orientation = (typeof orientations)[number];

/** Which stored pixel is seen at (x, y), by EXIF's own words on where row 0 and column 0 are. Source: EXIF 3.0, 4.6.4. */
const seenFrom: Record<Orientation, (x: number, y: number) => [x: number, y: number]> = {
  1: (x, y) => [x, y], // row 0 at the top, column 0 on the left
  2: (x, y) => [stored.width - 1 - x, y], // top, right
  3: (x, y) => [stored.width - 1 - x, stored.height - 1 - y], // bottom, right
  4: (x, y) => [x, stored.height - 1 - y], // bottom, left
  5: (x, y) => [y, x], // left, top
  6: (x, y) => [y, stored.height - 1 - x], // right, top
  7: (x, y) => [stored.width - 1 - y, stored.height - 1 - x], // right, bottom
  8: (x, y) => [stored.width - 1 - y, x], // left, bottom
};

function seen(image: RgbImage, orientation: Orientation): RgbImage {
  const isTurned = orientation >= 5;
  const [width, height] = isTurned ? [image.height, image.width] : [image.width, image.height];
  const data = new Uint8Array(image.data.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [column, row] = seenFrom[orientation](x, y);
      const from = (row * image.width + column) * 3;
      data.set(image.data.subarray(from, from + 3), (y * width + x) * 3);
    }
  }
  return { width, height, data };
}

/** The same size and pixels; quicker than `toEqual`, which looks at every byte by itself. */
function expectSame(image: RgbImage, expected: RgbImage): void {
  expect([image.width, image.height]).toEqual([expected.width, expected.height]);
  expect(Buffer.compare(image.data, expected.data)).toBe(0);
}

/** EXIF with nothing but an orientation, and another entry before it. */
function exif(orientation: number, { isLittle = true, type = 3, count = 1, directory = 8 } = {}): Buffer {
  const bytes = Buffer.alloc(directory + 2 + 2 * 12 + 4);
  const write16 = (value: number, at: number) =>
    isLittle ? bytes.writeUInt16LE(value, at) : bytes.writeUInt16BE(value, at);
  const write32 = (value: number, at: number) =>
    isLittle ? bytes.writeUInt32LE(value, at) : bytes.writeUInt32BE(value, at);
  bytes.write(isLittle ? "II*\0" : "MM\0*", "latin1");
  write32(directory, 4);
  write16(2, directory);
  for (const [i, [tag, value]] of [
    [0x0106, 2],
    [0x0112, orientation],
  ].entries()) {
    const at = directory + 2 + i * 12;
    write16(tag!, at);
    write16(type, at + 2);
    write32(count, at + 4);
    if (type === 4) write32(value!, at + 8);
    else write16(value!, at + 8);
  }
  return bytes;
}

function pngChunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}

const plain = {
  PNG: Buffer.from(encodePng(stored)),
  JPEG: await raw().jpeg({ quality: 95 }).toBuffer(),
  WebP: await raw().webp({ lossless: true }).toBuffer(),
};

function raw(): sharp.Sharp {
  const { width, height, data } = stored;
  return sharp(data, { raw: { width, height, channels: 3 } });
}

/** Files with EXIF put into them by hand, where cameras and editors put it. */
const withExif = {
  PNG: (data: Buffer) => Buffer.concat([plain.PNG.subarray(0, 33), pngChunk("eXIf", data), plain.PNG.subarray(33)]),
  JPEG: (data: Buffer) => jpegSegment(2, Buffer.concat([Buffer.from("Exif\0\0", "latin1"), data])),
  WebP: (data: Buffer) => webpWithExif(data, 0x08),
};
type Format = keyof typeof withExif;
const formats = Object.keys(withExif) as Format[];

function jpegSegment(at: number, data: Buffer): Buffer {
  const head = Buffer.from([0xff, 0xe1, (data.length + 2) >> 8, (data.length + 2) & 0xff]);
  return Buffer.concat([plain.JPEG.subarray(0, at), head, data, plain.JPEG.subarray(at)]);
}

function webpWithExif(data: Buffer, flags: number): Buffer {
  const chunk = (type: string, content: Uint8Array) => {
    const head = Buffer.from(`${type}\0\0\0\0`, "latin1");
    head.writeUInt32LE(content.length, 4);
    return Buffer.concat([head, content, Buffer.alloc(content.length & 1)]);
  };
  const extended = Buffer.alloc(10);
  extended[0] = flags;
  extended.writeUIntLE(stored.width - 1, 4, 3);
  extended.writeUIntLE(stored.height - 1, 7, 3);
  const body = Buffer.concat([chunk("VP8X", extended), plain.WebP.subarray(12), chunk("EXIF", data)]);
  const head = Buffer.from("RIFF\0\0\0\0WEBP", "latin1");
  head.writeUInt32LE(body.length + 4, 4);
  return Buffer.concat([head, body]);
}

/** The same pixels, with an orientation that another program wrote. */
async function written(format: Format, orientation: Orientation): Promise<Buffer> {
  const file = raw().withMetadata({ orientation });
  if (format === "PNG") return file.png().toBuffer();
  return (format === "JPEG" ? file.jpeg({ quality: 95 }) : file.webp({ lossless: true })).toBuffer();
}

describe.each(formats)("%s", (format) => {
  it.each(orientations)("of orientation %i stands upright", async (orientation) => {
    const expected = seen(await decodeImage(plain[format]), orientation);
    for (const file of [withExif[format](exif(orientation)), await written(format, orientation)]) {
      expectSame(await decodeImage(file), expected);
      const { width, height } = expected;
      expect(imageSize(file)).toEqual({ width, height });
      // What another program makes of the same file.
      const other = await sharp(file).autoOrient().removeAlpha().raw().toBuffer();
      if (format !== "JPEG") expect(Buffer.compare(other, expected.data)).toBe(0);
    }
  });

  it("is read in either byte order, as a short or a long number, and wherever its directory lies", async () => {
    const expected = seen(await decodeImage(plain[format]), 6);
    const spellings = [{ isLittle: false }, { isLittle: false, type: 4 }, { type: 4 }, { directory: 30 }];
    for (const spelling of spellings) {
      expectSame(await decodeImage(withExif[format](exif(6, spelling))), expected);
    }
  });

  it("whose notes say nothing, or nonsense, is left as it is", async () => {
    const expected = await decodeImage(plain[format]);
    const whole = exif(6);
    const nonsense = [
      ...[exif(0), exif(9), exif(0x606), exif(6, { count: 2 }), exif(6, { type: 2 }), Buffer.alloc(0)],
      ...Array.from({ length: whole.length - 18 }, (_, i) => whole.subarray(0, i)),
      Buffer.concat([whole.subarray(0, 4), Buffer.alloc(4, 0xff), whole.subarray(8)]),
    ];
    for (const data of nonsense) expectSame(await decodeImage(withExif[format](data)), expected);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (data) => void imageSize(withExif[format](Buffer.from(data)))),
    );
  });
});

describe("where else notes are found", () => {
  it("in a PNG behind its pixels, and with JPEG's mark in front", async () => {
    const marked = Buffer.concat([Buffer.from("Exif\0\0", "latin1"), exif(8)]);
    const end = plain.PNG.length - 12;
    for (const data of [exif(8), marked]) {
      const file = Buffer.concat([plain.PNG.subarray(0, end), pngChunk("eXIf", data), plain.PNG.subarray(end)]);
      expectSame(await decodeImage(file), seen(stored, 8));
    }
  });

  it("in a JPEG behind its frame header; the first counts, and other segments of that kind do not", async () => {
    const frame = plain.JPEG.indexOf(Buffer.from([0xff, 0xc0]));
    const behind = frame + 2 + plain.JPEG.readUInt16BE(frame + 2);
    const note = Buffer.concat([Buffer.from("Exif\0\0", "latin1"), exif(3)]);
    const upsideDown = seen(await decodeImage(plain.JPEG), 3);
    expectSame(await decodeImage(jpegSegment(behind, note)), upsideDown);
    const both = jpegSegment(2, note);
    const later = Buffer.concat([Buffer.from("Exif\0\0", "latin1"), exif(6)]);
    const head = Buffer.from([0xff, 0xe1, (later.length + 2) >> 8, (later.length + 2) & 0xff]);
    const twice = Buffer.concat([both.subarray(0, 6 + note.length), head, later, both.subarray(6 + note.length)]);
    expectSame(await decodeImage(twice), upsideDown);
    const xmp = Buffer.from("http://ns.adobe.com/xap/1.0/\0<x/>", "latin1");
    expectSame(await decodeImage(jpegSegment(2, xmp)), await decodeImage(plain.JPEG));
  });

  it("not in a WebP whose header does not announce them", async () => {
    expectSame(await decodeImage(webpWithExif(exif(6), 0)), stored);
  });
});

it("a phone's photo enters upright, pixel for pixel as diffusers' loader turns it", async () => {
  const read = (name: string) => new Uint8Array(readFileSync(new URL(`fixtures/${name}`, import.meta.url)));
  const photo = read("exif-orientation-6.jpg");
  const expected = await decodeImage(read("exif-6-upright-expected.png"));
  expect([expected.width, expected.height]).toEqual([128, 192]);
  expectSame(await decodeReference(photo, limits), expected);
  expectSame(await decodeAnyReference(photo, limits), expected);
  expect(anyReferenceSize(photo, limits).used).toEqual({ width: 128, height: 192 });
});

it("the size that a reference will have is known from its header, turned, enlarged or scaled down", async () => {
  for (const [width, height] of [
    [40, 90],
    [1500, 900],
    [64, 64],
    [33, 32],
  ] as const) {
    for (const orientation of [1, 6] as const) {
      const png = Buffer.from(encodePng(syntheticImage(width, height)));
      const file = Buffer.concat([png.subarray(0, 33), pngChunk("eXIf", exif(orientation)), png.subarray(33)]);
      const decoded = await decodeAnyReference(file, limits);
      const { used, stored: asStored } = anyReferenceSize(file, limits);
      expect(used).toEqual({ width: decoded.width, height: decoded.height });
      expect(asStored.width * asStored.height).toBe(width * height);
      if (width !== height) expect(used.width > used.height).toBe(width > height === (orientation === 1));
    }
  }
});

it("files of very many parts are refused before they take long", clocked, async () => {
  const empty = pngChunk("teST", Buffer.alloc(0));
  const many = Buffer.concat([
    plain.PNG.subarray(0, 33),
    ...Array.from({ length: 70_000 }, () => empty),
    plain.PNG.subarray(33),
  ]);
  const jpeg = Buffer.concat([plain.JPEG.subarray(0, 2), Buffer.alloc(2_000_000, Buffer.from([0xff, 0x00]))]);
  const webp = webpWithExif(exif(1), 0x08);
  const padded = Buffer.concat([webp.subarray(0, 30), Buffer.alloc(2_400_000), webp.subarray(30)]);
  padded.writeUInt32LE(padded.length - 8, 4);
  for (const file of [many, jpeg, padded]) {
    const began = performance.now();
    expect(() => imageSize(file)).toThrow(expect.objectContaining({ code: "reference.damaged" }));
    expect(performance.now() - began).toBeLessThan(300);
  }
});
