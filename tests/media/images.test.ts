// Reference files decoded as PIL decodes them, and everything that is no such file refused with a code.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { crc32, deflateSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { referenceLimits as limits } from "../../src/engine/models/flux2/reference-image.js";
import { DaybreakError, type ErrorCode } from "../../src/errors.js";
import { decodeImage } from "../../src/media/images.js";
import { encodePng } from "../../src/media/png.js";
import { decodeReference as decodeWithin } from "../../src/media/references.js";
import { clocked } from "../clocked.js";

type Fixture = { name: string; width: number; height: number; sha256: string; file: string };
const fixtures: Fixture[] = JSON.parse(readFileSync(new URL("fixtures/images.json", import.meta.url), "utf8")).images;
const bytesOf = ({ file }: Fixture) => new Uint8Array(Buffer.from(file, "base64"));
const named = (name: string) => bytesOf(fixtures.find((fixture) => fixture.name === name)!);
const oneOf = { PNG: named("RGB, all filters"), JPEG: named("JPEG 4:2:0"), WebP: named("WebP, lossy") };

/** As a reference of FLUX.2. */
const decodeReference = (bytes: Uint8Array) => decodeWithin(bytes, limits);

async function codeOf(run: () => Promise<unknown>): Promise<ErrorCode | undefined> {
  try {
    await run();
  } catch (error) {
    expect(error).toBeInstanceOf(DaybreakError);
    expect((error as Error).message).toMatch(/^got [^\n]+$/);
    return (error as DaybreakError).code;
  }
  return undefined;
}

function text(latin1: string): Uint8Array {
  return new Uint8Array(Buffer.from(latin1.padEnd(64, "\0"), "latin1"));
}

function changed(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, at);
  return copy;
}

/** A PNG with any header and any data, checksums right. */
function craftPng(width: number, height: number, depth: number, colourType: number, idat: Uint8Array, interlace = 0) {
  const chunk = (type: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colourType, 0, 0, interlace], 8);
  const signature = oneOf.PNG.subarray(0, 8);
  const chunks = [chunk("IHDR", header), chunk("IDAT", idat), chunk("IEND", new Uint8Array(0))];
  return new Uint8Array(Buffer.concat([signature, ...chunks]));
}

describe("pixels equal PIL's", () => {
  it.each(fixtures)("$name", async (fixture) => {
    const { width, height, data } = await decodeReference(bytesOf(fixture));
    expect([width, height]).toEqual([fixture.width, fixture.height]);
    expect(data).toBeInstanceOf(Uint8Array);
    expect(createHash("sha256").update(data).digest("hex")).toBe(fixture.sha256);
  });

  it("reads a file at an odd offset of a larger buffer, with bytes after its end", async () => {
    for (const file of Object.values(oneOf)) {
      const padded = new Uint8Array(file.length + 20);
      padded.set(file, 7);
      expect(await decodeReference(padded.subarray(7))).toEqual(await decodeReference(file));
    }
  });
});

describe("sizes are checked in the header, before decoding", () => {
  const cases: [string, number, number, ErrorCode][] = [
    ["63×64", 63, 64, "reference.too_small"],
    ["64×63", 64, 63, "reference.too_small"],
    ["1×1", 1, 1, "reference.too_small"],
    ["513×64", 513, 64, "reference.aspect_ratio"],
    ["8192×8193", 8192, 8193, "reference.too_large"],
    ["16000×16000", 16000, 16000, "reference.too_large"],
  ];
  const jpegFrame = oneOf.JPEG.findIndex((byte, i, all) => byte === 0xff && all[i + 1] === 0xc0);

  it.each(cases)("%s", async (_, width, height, code) => {
    const png = craftPng(width, height, 8, 2, new Uint8Array(0));
    expect(await codeOf(() => decodeReference(png))).toBe(code);
    const jpeg = changed(oneOf.JPEG, jpegFrame + 5, height >> 8, height & 255, width >> 8, width & 255);
    expect(await codeOf(() => decodeReference(jpeg))).toBe(code);
    const webp = changed(oneOf.WebP, 26, width & 255, width >> 8, height & 255, height >> 8);
    expect(await codeOf(() => decodeReference(webp))).toBe(code);
  });

  it.each(["WebP, lossless", "WebP, animated: the first frame"])("%s: a small one is refused", async (name) => {
    const file = named(name);
    const small = name.includes("lossless") ? changed(file, 21, 62, 0xc0, 15, 0) : changed(file, 24, 62, 0, 0);
    expect(await codeOf(() => decodeReference(small))).toBe("reference.too_small");
  });

  it("lets the caller demand another size, but never more than 64 megapixels", async () => {
    const tiny = encodePng({ width: 3, height: 2, data: new Uint8Array(18) });
    expect(await decodeImage(tiny)).toEqual({ width: 3, height: 2, data: new Uint8Array(18) });
    const huge = craftPng(100_000, 100_000, 1, 0, new Uint8Array(0));
    expect(await codeOf(() => decodeImage(huge))).toBe("reference.too_large");
  });
});

describe("what is no reference", () => {
  it.each<[string, Uint8Array, ErrorCode]>([
    ["nothing", new Uint8Array(0), "reference.not_an_image"],
    ["one byte", Uint8Array.of(0x89), "reference.not_an_image"],
    ["text", text("hello, world"), "reference.not_an_image"],
    ["zeros", new Uint8Array(100), "reference.not_an_image"],
    ["a sound file", text("RIFF\0\0\0\0WAVEfmt "), "reference.not_an_image"],
    ["a GIF", text("GIF89a"), "reference.format_unsupported"],
    ["a BMP", text("BM"), "reference.format_unsupported"],
    ["a little-endian TIFF", text("II*\0"), "reference.format_unsupported"],
    ["a big-endian TIFF", text("MM\0*"), "reference.format_unsupported"],
    ["an AVIF", text("\0\0\0 ftypavif"), "reference.format_unsupported"],
    ["a HEIC", text("\0\0\0 ftypheic"), "reference.format_unsupported"],
    ["a JPEG XL", text("\xff\x0a"), "reference.format_unsupported"],
    ["an SVG", text("<svg xmlns="), "reference.format_unsupported"],
    ["a PDF", text("%PDF-1.7"), "reference.format_unsupported"],
    ["an MP4", text("\0\0\0 ftypisom"), "reference.format_unsupported"],
  ])("%s", async (_, bytes, code) => {
    expect(await codeOf(() => decodeReference(bytes))).toBe(code);
  });

  it("names the formats that are read", async () => {
    await expect(decodeReference(text("GIF89a"))).rejects.toThrow(/a GIF file.*PNG, JPEG or WebP/);
  });
});

describe("truncated files", () => {
  it.each(["RGB, all filters", "RGB, interlaced", "JPEG 4:2:0", "JPEG, progressive", "WebP, lossy", "WebP, lossless"])(
    "%s, cut anywhere after its magic bytes",
    async (name) => {
      const file = named(name);
      const last = file.length - 1;
      for (
        let length = name.startsWith("RGB") ? 8 : 12;
        length <= last;
        length += Math.max(1, Math.floor((last - 12) / 40))
      ) {
        expect([length, await codeOf(() => decodeReference(file.slice(0, length)))]).toEqual([
          length,
          "reference.truncated",
        ]);
      }
      expect(await codeOf(() => decodeReference(file.slice(0, last)))).toBe("reference.truncated");
    },
  );

  it("a PNG whose pixels end early although its chunks are whole", async () => {
    const rows = deflateSync(Buffer.alloc(65 * 63));
    expect(await codeOf(() => decodeReference(craftPng(64, 64, 8, 0, rows)))).toBe("reference.truncated");
    const cut = deflateSync(Buffer.alloc(65 * 64)).subarray(0, 10);
    expect(await codeOf(() => decodeReference(craftPng(64, 64, 8, 0, cut)))).toBe("reference.truncated");
    expect(await codeOf(() => decodeReference(craftPng(64, 64, 8, 0, new Uint8Array(0))))).toBe("reference.truncated");
  });
});

describe("damaged files", () => {
  const png = oneOf.PNG;
  it.each<[string, Uint8Array, ErrorCode]>([
    ["a wrong checksum in IHDR", changed(png, 29, 0, 0, 0, 0), "reference.damaged"],
    ["a changed byte in IDAT", changed(png, 100, png[100]! ^ 1), "reference.damaged"],
    ["no chunk after IHDR", changed(png, 37, 0, 0, 0, 0), "reference.damaged"],
    ["a bit depth of 3", craftPng(64, 64, 3, 0, new Uint8Array(0)), "reference.damaged"],
    ["colour type 5", craftPng(64, 64, 8, 5, new Uint8Array(0)), "reference.damaged"],
    ["1-bit RGB", craftPng(64, 64, 1, 2, new Uint8Array(0)), "reference.damaged"],
    ["interlace method 2", craftPng(64, 64, 8, 0, new Uint8Array(0), 2), "reference.damaged"],
    ["no width", craftPng(0, 64, 8, 0, new Uint8Array(0)), "reference.damaged"],
    ["no palette", craftPng(64, 64, 8, 3, deflateSync(Buffer.alloc(65 * 64))), "reference.damaged"],
    ["pixels that are no zlib stream", craftPng(64, 64, 8, 0, text("not zlib")), "reference.damaged"],
    ["filter 5", craftPng(64, 64, 8, 0, deflateSync(Buffer.alloc(65 * 64, 5))), "reference.damaged"],
    ["a JPEG without a frame", text("\xff\xd8\xff\xda\0\x0c"), "reference.damaged"],
    ["a JPEG of headers only", text("\xff\xd8\xff\xe0\0\x10JFIF"), "reference.truncated"],
    ["a JPEG with a segment of length 0", text("\xff\xd8\xff\xe0\0\0"), "reference.damaged"],
    ["a WebP of an unknown kind", text("RIFF\x20\0\0\0WEBPVP9 "), "reference.damaged"],
  ])("%s", async (_, bytes, code) => {
    expect(await codeOf(() => decodeReference(bytes))).toBe(code);
  });

  it("a WebP whose header announces another size than it holds", async () => {
    const wider = changed(named("WebP with alpha"), 24, 99);
    expect(await codeOf(() => decodeReference(wider))).toBe("reference.damaged");
  });

  it("inflates a decompression bomb no further than its picture", clocked, async () => {
    const bomb = deflateSync(Buffer.alloc(200 * 1024 * 1024), { level: 1 });
    for (const interlace of [0, 1]) {
      const before = performance.now();
      const { data } = await decodeReference(craftPng(64, 64, 8, 0, bomb, interlace));
      expect(data.length).toBe(64 * 64 * 3);
      // Only a clock tells: to inflate the whole bomb takes longer.
      expect(performance.now() - before).toBeLessThan(1000);
    }
  });

  it.each(Object.entries(oneOf))("%s: random changes give a picture or a DaybreakError", async (_, file) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { minLength: 1, maxLength: 12 }),
        fc.option(fc.nat(file.length)),
        async (changes, cut) => {
          const bytes = file.slice(0, cut ?? file.length);
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          const code = await codeOf(async () => {
            const { width, height, data } = await decodeReference(bytes);
            expect(data.length).toBe(width * height * 3);
          });
          if (code) expect(code).toMatch(/^reference\./);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("random bytes behind each magic number give a DaybreakError", async () => {
    for (const file of Object.values(oneOf)) {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (noise) => {
          const bytes = new Uint8Array([...file.subarray(0, 12), ...noise]);
          expect(await codeOf(() => decodeReference(bytes))).toMatch(/^reference\./);
        }),
        { numRuns: 200 },
      );
    }
  });
});

describe("without sharp", () => {
  it("JPEG and WebP are refused naming the package, PNG is read", async () => {
    vi.resetModules();
    vi.doMock("sharp", () => {
      throw new Error("Cannot find package 'sharp'");
    });
    const { decodeImage: decode } = await import("../../src/media/images.js");
    for (const format of ["JPEG", "WebP"] as const) {
      await expect(decode(oneOf[format])).rejects.toMatchObject({
        code: "reference.format_unsupported",
        message: expect.stringMatching(/npm install sharp/),
      });
    }
    expect((await decode(oneOf.PNG)).width).toBe(67);
    vi.doUnmock("sharp");
    vi.resetModules();
  });
});
