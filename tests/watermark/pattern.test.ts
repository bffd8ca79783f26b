// What keys and payloads become, against vectors that another implementation made: bins, phases, CRC, symbols, the tile.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { binsOf, defaultKey, tileOf } from "../../src/watermark/pattern.js";
import { bitsOfPayload, bitsOfSymbols, payloadOfBits, symbolsOf } from "../../src/watermark/payload.js";
import { payloadOfHex, vectors } from "./cases.js";

describe("the bins of a key", () => {
  const bins = binsOf(defaultKey);

  it("are those of the vectors, in their order", () => {
    expect(defaultKey).toBe(Number(vectors.key));
    expect(bins.length).toBe(vectors.bins);
    const first = vectors["first bins [u, v, phase, part]"];
    for (const [i, [u, v, phase, part]] of first.entries()) {
      expect(bins[i]).toEqual({ u, v, phase: expect.closeTo(phase!, 8), part });
    }
    const counts = [-1, 0, 1, 2, 3].map((part) => bins.filter((bin) => bin.part === part).length);
    expect(counts).toEqual(vectors["bins of sync and of each symbol"]);
  });

  it("take two draws each, the phase first", () => {
    const [phase0, part0, phase1, part1] = vectors.draws as [number, number, number, number];
    expect(bins[0]!.phase).toBe((phase0 / 2 ** 32) * 2 * Math.PI);
    expect(bins[1]!.phase).toBe((phase1 / 2 ** 32) * 2 * Math.PI);
    expect([bins[0]!.part, bins[1]!.part]).toEqual([part0, part1].map((draw) => Math.max(-1, (draw >>> 29) - 4)));
  });

  it("hold one of each pair that mirror each other, and nothing outside the band", () => {
    const places = new Set(bins.map(({ u, v }) => `${u} ${v}`));
    expect(places.size).toBe(bins.length);
    for (const { u, v } of bins) {
      expect(places.has(`${-u} ${-v}`)).toBe(false);
      expect(u * u + v * v).toBeGreaterThanOrEqual(34);
      expect(u * u + v * v).toBeLessThanOrEqual(792);
    }
  });

  it("of another key have other phases", () => {
    const others = binsOf(0);
    expect(others.map(({ u, v }) => [u, v])).toEqual(bins.map(({ u, v }) => [u, v]));
    expect(others.filter(({ phase }, i) => Math.abs(phase - bins[i]!.phase) < 1e-3).length).toBeLessThan(5);
  });

  it.each([-1, 2 ** 32, 0.5, Number.NaN])("refuse the key %d", (key) => {
    expect(() => binsOf(key)).toThrow(`got the key ${key}, expected an integer of 32 bits`);
  });
});

describe("a payload", () => {
  it.each(Object.entries(vectors.crc8))("of %s ends in the CRC %s", (bits, crc) => {
    expect(symbolsOf(Number(bits)).at(-1)! % 256).toBe(Number(crc));
  });

  it("is four symbols, high bits first", () => {
    expect(symbolsOf(0x20abcdef)).toEqual(vectors["symbols of 0x20abcdef"]);
  });

  it("becomes the bits of its kind, version and id, and comes back", () => {
    for (const hex of ["0x10000000", "0x10000001", "0x20abcdef", "0x30ffffff"]) {
      expect(bitsOfPayload(payloadOfHex(hex))).toBe(Number(hex));
      expect(payloadOfBits(Number(hex))).toEqual(payloadOfHex(hex));
    }
  });

  it("comes back from its symbols; a symbol that is another one is noticed nearly always", () => {
    const word = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    fc.assert(fc.property(word, (bits) => bitsOfSymbols(symbolsOf(bits)) === bits));
    let passed = 0;
    for (let symbol = 0; symbol < 1024; symbol++) {
      if (bitsOfSymbols([130, 700, 891, symbol]) !== undefined) passed++;
    }
    expect(passed).toBe(4); // 10 bits against 8
  });

  it.each(["0x00000000", "0x40000000", "0x11000000", "0xffffffff"])("of another version is none: %s", (bits) => {
    expect(payloadOfBits(Number(bits))).toBeUndefined();
  });

  it.each([
    [{ kind: "text", id: -1 }, "got the id -1, expected an integer from 0 to 16777215"],
    [{ kind: "text", id: 2 ** 24 }, "got the id 16777216"],
    [{ kind: "video", id: 1.5 }, "got the id 1.5"],
    [{ kind: "picture", id: 0 }, 'got the kind "picture", expected one of text, references, video'],
  ])("%j is refused", (payload, message) => {
    expect(() => bitsOfPayload(payload as never)).toThrow(message);
  });
});

describe("the tile", () => {
  const tile = tileOf(defaultKey, 0x10000000);
  const expected = vectors["tile of 0x10000000"];

  it("has the values of the vectors", () => {
    const near = (values: number[]) => values.map((value) => expect.closeTo(value, 4));
    expect([...tile.subarray(0, 8)]).toEqual(near(expected["row 0, columns 0..7"]));
    expect([...tile.subarray(77 * 128 + 120, 78 * 128)]).toEqual(near(expected["row 77, columns 120..127"]));
    expect(Math.min(...tile)).toBeCloseTo(expected.min, 4);
    expect(Math.max(...tile)).toBeCloseTo(expected.max, 4);
  });

  it("has no mean and a deviation of 1", () => {
    const mean = tile.reduce((sum, value) => sum + value, 0) / tile.length;
    expect(mean).toBeCloseTo(0, 12);
    expect(tile.reduce((sum, value) => sum + value * value, 0) / tile.length).toBeCloseTo(1, 12);
  });

  it("is made once, and others are made for other keys and payloads", () => {
    expect(tileOf(defaultKey, 0x10000000)).toBe(tile);
    expect([...tileOf(defaultKey, 0x10000001)]).not.toEqual([...tile]);
    expect([...tileOf(1, 0x10000000)]).not.toEqual([...tile]);
  });

  it("is given up for newer ones at some time", () => {
    for (let bits = 0; bits < 8; bits++) tileOf(2, bits);
    const again = tileOf(defaultKey, 0x10000000);
    expect(again).not.toBe(tile);
    expect([...again]).toEqual([...tile]);
  });
});
