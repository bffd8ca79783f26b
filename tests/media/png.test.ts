// PNG writing, pixels and text chunks; pngjs is the independent reader.

import fc from "fast-check";
import { PNG } from "pngjs";
import { describe, expect, it } from "vitest";
import { decodePng, encodePng, pngHeader } from "../../src/media/png.js";
import { readPngText } from "./png-text.js";

function noise(width: number, height: number) {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24);
  return { width, height, data };
}

/** Types of a file's chunks in order, by a reader of its own. */
function chunkTypes(file: Uint8Array): string[] {
  const bytes = Buffer.from(file);
  const types: string[] = [];
  for (let at = 8; at < bytes.length; at += bytes.readUInt32BE(at) + 12) {
    types.push(bytes.toString("latin1", at + 4, at + 8));
  }
  return types;
}

describe("encodePng", () => {
  it("goes back and forth without loss, for this decoder and for pngjs", async () => {
    const extent = fc.integer({ min: 1, max: 40 });
    await fc.assert(
      fc.asyncProperty(extent, extent, async (width, height) => {
        const image = noise(width, height);
        const file = encodePng(image);
        expect(pngHeader(file, 100)).toEqual({ width, height, exif: undefined });
        expect(await decodePng(file)).toEqual(image);
        const rgba = PNG.sync.read(Buffer.from(file)).data;
        expect(image.data.every((byte, i) => byte === rgba[Math.floor(i / 3) * 4 + (i % 3)])).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it("writes RGB of 8 bits without alpha", () => {
    const file = encodePng(noise(5, 4));
    expect([...file.subarray(24, 29)]).toEqual([8, 2, 0, 0, 0]);
    expect(chunkTypes(file)).toEqual(["IHDR", "IDAT", "IEND"]);
  });

  it("takes pixels at an offset of a larger buffer", async () => {
    const image = noise(5, 4);
    const padded = new Uint8Array(100);
    padded.set(image.data, 13);
    expect(await decodePng(encodePng({ ...image, data: padded.subarray(13, 73) }))).toEqual(image);
  });

  it("asserts the length of its pixels", () => {
    expect(() => encodePng({ width: 4, height: 4, data: new Uint8Array(64) })).toThrow(/got 64 bytes for 4×4/);
  });
});

describe("text chunks", () => {
  it("lie before the pixels, Latin-1 as tEXt and the rest as iTXt", () => {
    const file = encodePng(noise(3, 3), { seed: "7", prompt: "grüße\nworld", other: "漢字 😀" });
    expect(chunkTypes(file)).toEqual(["IHDR", "tEXt", "tEXt", "iTXt", "IDAT", "IEND"]);
    // pngjs verifies the checksums of the chunks it knows; this reader verifies those of text
    expect(PNG.sync.read(Buffer.from(file)).width).toBe(3);
    expect(readPngText(file)).toEqual({ seed: "7", prompt: "grüße\nworld", other: "漢字 😀" });
  });

  it("carry any text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        expect(readPngText(encodePng(noise(1, 1), { prompt: value })).prompt).toBe(value.replaceAll("\0", "\ufffd"));
      }),
    );
  });

  it("keep a keyword of the name __proto__", () => {
    const text = readPngText(encodePng(noise(1, 1), JSON.parse('{"__proto__": "x"}')));
    expect(Object.entries(text)).toEqual([["__proto__", "x"]]);
  });

  it.each(["", "k".repeat(80), " a", "a ", "a  b", "漢", "a\0b"])("assert the keyword %j", (keyword) => {
    expect(() => encodePng(noise(1, 1), { [keyword]: "x" })).toThrow(/PNG keyword/);
  });
});
