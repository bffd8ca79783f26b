// PNG writing, text chunks and their reading back; pngjs is the independent reader.

import fc from "fast-check";
import { PNG } from "pngjs";
import { describe, expect, it } from "vitest";
import { DaybreakError } from "../../src/errors.js";
import { decodePng, encodePng, pngSize, readPngText } from "../../src/media/png.js";

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
        expect(pngSize(file)).toEqual({ width, height });
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

  it("are read as other programs write them, compressed too", () => {
    // by PIL: PngInfo.add_text and add_itxt with and without zip, on a picture of 1×1
    const file = new Uint8Array(Buffer.from(pilTexts, "base64"));
    expect(readPngText(file)).toEqual({
      plain: "äöü",
      zipped: "abc ".repeat(50),
      international: "漢字",
      "international zipped": "漢字 ".repeat(50),
    });
  });

  it("are not read from what is no PNG, or one with damage", () => {
    const codeOf = (bytes: Uint8Array) => {
      try {
        readPngText(bytes);
      } catch (error) {
        return (error as DaybreakError).code;
      }
      return undefined;
    };
    const file = encodePng(noise(3, 3), { prompt: "red" });
    expect(codeOf(new Uint8Array(10))).toBe("reference.not_an_image");
    expect(codeOf(file.subarray(0, 50))).toBe("reference.truncated");
    file[45] = file[45]! ^ 1;
    expect(codeOf(file)).toBe("reference.damaged");
  });

  it("never throw anything but a DaybreakError", () => {
    const file = new Uint8Array(Buffer.from(pilTexts, "base64"));
    fc.assert(
      fc.property(fc.nat(file.length - 1), fc.nat(255), fc.nat(file.length), (at, value, cut) => {
        const bytes = file.slice(0, cut);
        if (at < cut) bytes[at] = value;
        try {
          readPngText(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(DaybreakError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

const pilTexts =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAACXRFWHRwbGFpbgDk9vzr/69NAAAAF3pUWHR6aXBwZWQAAHicS0xKVkgcBhgAFD" +
  "c/rXz6nA0AAAAgaVRYdGludGVybmF0aW9uYWwAAAB6aADlm73pmYUA5ryi5a2Xz01RYgAAAC1pVFh0aW50ZXJuYXRpb25hbCB6aXBwZWQAAQAA" +
  "AHice7Zn0dO10xWejVK0oACH7+OLP6sriQAAAAxJREFUeJxjYGBgAAAABAAB9hc4VQAAAABJRU5ErkJggg==";
