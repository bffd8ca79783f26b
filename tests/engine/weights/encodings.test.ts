import { describe, expect, it } from "vitest";
import { encodingOf, widen } from "../../../src/engine/weights/encodings.js";
import { storedAs, widened } from "./fixtures.js";

const bytesOf = (array: Uint16Array | Float32Array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** binary16 by its definition. */
function f16Value(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

describe("widening", () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);

  it("gives every F16 value, subnormals, infinities and signed zeros included", () => {
    const values = widened(storedAs("F16"), bytesOf(halves));
    for (let half = 0; half < 65536; half++) {
      if (!Object.is(values[half], f16Value(half))) expect([half, values[half]]).toEqual([half, f16Value(half)]);
    }
  });

  it("gives every BF16 value as the upper half of a float32, NaN payloads included", () => {
    const bits = new Uint32Array(65536);
    widen(storedAs("BF16"), bytesOf(halves), bits);
    for (let half = 0; half < 65536; half++) {
      if (bits[half] !== (half << 16) >>> 0) expect([half, bits[half]]).toEqual([half, (half << 16) >>> 0]);
    }
  });

  it("takes bytes of any alignment and writes at an offset", () => {
    const values = Float32Array.of(1.5, -2, 65504);
    const shifted = new Uint8Array(1 + 12);
    shifted.set(bytesOf(values), 1);
    const target = new Uint32Array(5);
    widen(storedAs("F32"), shifted.subarray(1), target, 2);
    expect([...new Float32Array(target.buffer)]).toEqual([0, 0, 1.5, -2, 65504]);

    const f16 = new Uint8Array(1 + 4);
    f16.set(bytesOf(Uint16Array.of(0x3e00, 0xc000)), 1);
    expect([...widened(storedAs("F16"), f16.subarray(1))]).toEqual([1.5, -2]);
  });

  it("asserts on torn elements and on a target that is too short", () => {
    expect(() => widen(storedAs("F16"), new Uint8Array(3), new Uint32Array(4))).toThrow(/got 3 bytes/);
    expect(() => widen(storedAs("F16"), new Uint8Array(4), new Uint32Array(4), 3)).toThrow(/expected room/);
  });

  it("knows rows by their names, and no others", () => {
    const sizes = ["F32", "F16", "BF16"].map((name) => [encodingOf(name)?.name, encodingOf(name)?.elementBytes]);
    expect(sizes).toEqual([
      ["F32", 4],
      ["F16", 2],
      ["BF16", 2],
    ]);
    for (const name of ["I8", "bf16", "", "constructor"]) expect(encodingOf(name)).toBe(undefined);
  });
});
