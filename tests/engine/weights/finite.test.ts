import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { FiniteTest } from "../../../src/engine/weights/encodings.js";
import { checkedMemory } from "../../../src/engine/weights/finite.js";
import { type EncodingName, storedAs, widened } from "./fixtures.js";

const dtypes = ["BF16", "F16", "F32"] as const;

const testOf = (name: EncodingName) => storedAs(name).finite as FiniteTest;

/** Widened to numbers, by what the kernels' tables were checked with. */
function expected(name: EncodingName, bytes: Uint8Array): boolean {
  return widened(storedAs(name), bytes).every(Number.isFinite);
}

describe.each([
  ["WebAssembly", false],
  ["script", true],
])("by %s", (_, scripted) => {
  const memory = checkedMemory(1000, { scripted });
  const usesWasm = () => memory.bytes.buffer.byteLength % 65536 === 0;

  it("it is what is meant to be tested", () => expect(usesWasm()).toBe(!scripted));

  it.each(["BF16", "F16"] as const)("tells every value of %s, at every place", (dtype) => {
    const bytes = memory.bytes.subarray(0, 2 * 77); // whole scans, and a rest
    const halves = new Uint16Array(bytes.buffer, 0, 77);
    halves.fill(dtype === "BF16" ? 0x7f7f : 0x7bff); // the largest finite number
    const fill = halves[0]!;
    for (let value = 0; value < 0x10000; value++) {
      const place = value % halves.length;
      const finite = expected(dtype, new Uint8Array(Uint16Array.of(value).buffer));
      halves[place] = value;
      if (memory.allFinite(testOf(dtype), bytes) !== finite) expect.fail(`got ${value.toString(16)} at ${place} wrong`);
      halves[place] = fill;
    }
    expect(memory.allFinite(testOf(dtype), bytes)).toBe(true);
  });

  it.each(dtypes)("%s: any part of the memory, one value anywhere in it or beside it", (dtype) => {
    const size = storedAs(dtype).elementBytes;
    const count = memory.bytes.length / size;
    fc.assert(
      fc.property(fc.nat(count), fc.nat(count), fc.nat(count - 1), fc.integer(), (a, b, spoilt, seed) => {
        const { bytes } = memory;
        let random = seed;
        for (let i = 0; i < bytes.length; i++) {
          random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
          bytes[i] = (random >>> 24) & (i % size === size - 1 ? 0xbf : 0xff); // an exponent's bit is never set
        }
        const [begin, end] = [Math.min(a, b), Math.max(a, b)];
        const part = bytes.subarray(begin * size, end * size);
        expect(memory.allFinite(testOf(dtype), part)).toBe(true);
        bytes.set([0xff, 0x7f], (spoilt + 1) * size - 2);
        const isInside = begin <= spoilt && spoilt < end;
        expect(memory.allFinite(testOf(dtype), part)).toBe(!isInside);
        expect(expected(dtype, part)).toBe(!isInside);
      }),
      { numRuns: 300 },
    );
  });

  it("F32: infinities, NaNs and the largest numbers, at every place", () => {
    const words = new Uint32Array(memory.bytes.buffer, 0, 41);
    const bytes = memory.bytes.subarray(0, words.byteLength);
    for (const [place] of words.entries()) {
      words.fill(0x7f7fffff);
      for (const bits of [0x7f800000, 0xff800000, 0x7fc00000, 0xffffffff, 0x7f800001]) {
        words[place] = bits;
        expect(memory.allFinite(testOf("F32"), bytes)).toBe(false);
      }
      for (const bits of [0xff7fffff, 0, 0x80000000, 1, 0x007f_ffff]) {
        words[place] = bits;
        expect(memory.allFinite(testOf("F32"), bytes)).toBe(true);
      }
    }
  });
});

describe("without WebAssembly", () => {
  afterEach(() => vi.unstubAllGlobals());

  it.each([
    ["it does not exist", undefined],
    [
      "a page's policy forbids to compile",
      {
        Memory: WebAssembly.Memory,
        Instance: WebAssembly.Instance,
        Module: class {
          constructor() {
            throw new WebAssembly.CompileError("blocked by the content security policy");
          }
        },
      },
    ],
  ])("%s: script answers", (_, replacement) => {
    checkedMemory(100); // takes what others have closed
    vi.stubGlobal("WebAssembly", replacement);
    const { bytes, allFinite } = checkedMemory(100);
    expect(bytes.length).toBe(100);
    expect(bytes.buffer.byteLength).toBe(100);
    expect(allFinite(testOf("F32"), bytes)).toBe(true);
    bytes[99] = 0x7f;
    bytes[98] = 0x80;
    expect(allFinite(testOf("F32"), bytes)).toBe(false);
  });
});

it("memory that was closed is given out again where it suffices, and never twice", () => {
  const [first, second] = [checkedMemory(100_000), checkedMemory(100_000)];
  expect(second.bytes.buffer).not.toBe(first.bytes.buffer);
  first.close();
  const third = checkedMemory(5);
  expect(third.bytes.buffer).toBe(first.bytes.buffer);
  expect(third.bytes.length).toBe(5);
  const fourth = checkedMemory(5);
  expect([first, second].map(({ bytes }) => bytes.buffer)).not.toContain(fourth.bytes.buffer);
  third.close();
  expect(checkedMemory(1_000_000).bytes.length).toBe(1_000_000);
});

it("memory of no bytes is memory", () => {
  const { bytes, allFinite } = checkedMemory(0);
  expect(allFinite(testOf("BF16"), bytes)).toBe(true);
});
