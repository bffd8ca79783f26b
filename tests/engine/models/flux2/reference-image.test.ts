// Reference images against Pillow's and diffusers' bytes, by hash, for inputs that both sides generate.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { lanczosResize, type RgbImage } from "../../../../src/engine/images.js";
import {
  normalizeReference,
  preparedSize,
  prepareReference,
  referenceLimits,
} from "../../../../src/engine/models/flux2/reference-image.js";
import {
  checkReference,
  checkReferenceSize,
  maxReferencePixels,
  scaleReference,
} from "../../../../src/engine/references.js";
import type { ErrorCode } from "../../../../src/errors.js";

type Size = [width: number, height: number];
type Fixture = {
  resize: { kind: Kind; from: Size; to: Size; input: string; sha256: string }[];
  prepare: { kind: Kind; from: Size; multiple: number; to: Size; pixels: string; normalized: string }[];
};
type Kind = "noise" | "checks" | "ramp";

const fixture: Fixture = JSON.parse(readFileSync(new URL("../fixtures/reference-image.json", import.meta.url), "utf8"));

function sha256(values: Uint8Array | Float32Array): string {
  return createHash("sha256")
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest("hex");
}

function pattern(kind: Kind, [width, height]: Size): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const c = i % 3;
    const x = Math.floor(i / 3) % width;
    const y = Math.floor(i / 3 / width);
    if (kind === "noise") {
      let bits = (Math.imul(i, 2654435761) + 12345) >>> 0;
      bits = Math.imul(bits ^ (bits >>> 15), 2246822519);
      data[i] = bits ^ (bits >>> 13);
    } else if (kind === "checks") {
      data[i] = ((Math.floor(x / (5 + c)) + Math.floor(y / 7)) & 1) * 255;
    } else {
      data[i] = x * (c + 1) + y * 3;
    }
  }
  return { width, height, data };
}

function blank(width: number, height: number, bytes = width * height * 3): RgbImage {
  return { width, height, data: new Uint8Array(bytes) };
}

function codeOf(run: () => unknown): ErrorCode | undefined {
  try {
    run();
  } catch (error) {
    return (error as { code?: ErrorCode }).code;
  }
  return undefined;
}

describe("LANCZOS is antialiased, in two 8-bit passes: byte-exact against Pillow", () => {
  it.each(fixture.resize)("$kind $from → $to", ({ kind, from, to, input, sha256: expected }) => {
    const image = pattern(kind, from);
    expect(sha256(image.data)).toBe(input);
    const resized = lanczosResize(image, ...to);
    expect([resized.width, resized.height]).toEqual(to);
    expect(sha256(resized.data)).toBe(expected);
  });
});

describe("prepareReference equals diffusers' preprocessing", () => {
  it.each(fixture.prepare)("$kind $from → $to, multiples of $multiple", ({ kind, from, multiple, to, ...expected }) => {
    const prepared = prepareReference(pattern(kind, from), multiple);
    expect([prepared.width, prepared.height]).toEqual(to);
    expect(preparedSize({ width: from[0], height: from[1] }, multiple)).toEqual({ width: to[0], height: to[1] });
    expect(sha256(prepared.data)).toBe(expected.pixels);
    expect(sha256(normalizeReference(prepared))).toBe(expected.normalized);
  });

  it("leaves an image of the right size untouched", () => {
    const image = pattern("ramp", [80, 64]);
    expect(prepareReference(image)).toEqual(image);
  });
});

describe("scaleReference", () => {
  it.each([
    [1500, 1201],
    [2047, 900],
    [1024, 1024],
    [65, 511],
  ])("%d×%d: preparing what was scaled before changes nothing", (width, height) => {
    const image = { width, height, data: Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 7919) >> 3) };
    const scaled = scaleReference(referenceLimits, image);
    expect(scaled.width * scaled.height).toBeLessThanOrEqual(1024 * 1024);
    const prepared = prepareReference(scaled);
    const direct = prepareReference(image);
    expect([prepared.width, prepared.height]).toEqual([direct.width, direct.height]);
    expect(Buffer.compare(prepared.data, direct.data)).toBe(0);
  });
});

describe("limits", () => {
  it.each<[number, number, ErrorCode | undefined]>([
    [64, 64, undefined],
    [64, 512, undefined],
    [63, 64, "reference.too_small"],
    [64, 63, "reference.too_small"],
    [0, 64, "reference.too_small"],
    [513, 64, "reference.aspect_ratio"],
    [64, 513, "reference.aspect_ratio"],
    [8192, 8192, undefined],
    [8192, 8193, "reference.too_large"],
    [65535, 65535, "reference.too_large"],
  ])("%i×%i → %s", (width, height, code) => {
    expect(codeOf(() => checkReferenceSize(referenceLimits, { width, height }))).toBe(code);
  });

  it("keeps its largest area in one constant", () => {
    expect(maxReferencePixels).toBe(8192 * 8192);
  });

  it.each<[string, unknown, ErrorCode]>([
    ["too few bytes", blank(64, 64, 64 * 64 * 3 - 1), "reference.truncated"],
    ["four bytes a pixel", blank(64, 64, 64 * 64 * 4), "reference.not_an_image"],
    ["no data", { width: 64, height: 64 }, "reference.not_an_image"],
    ["data of another type", { width: 64, height: 64, data: new Float32Array(64 * 64 * 3) }, "reference.not_an_image"],
    ["a fractional width", { ...blank(64, 64), width: 64.5 }, "reference.not_an_image"],
    ["a negative height", { ...blank(64, 64), height: -64 }, "reference.not_an_image"],
    ["nothing", undefined, "reference.not_an_image"],
  ])("refuses %s", (_, image, code) => {
    expect(codeOf(() => checkReference(referenceLimits, image as RgbImage))).toBe(code);
    expect(codeOf(() => prepareReference(image as RgbImage))).toBe(code);
  });
});
