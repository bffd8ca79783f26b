// References judged by their headers before a job exists, and decoded within it.

import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { referenceLimits } from "../../../src/engine/models/flux2/reference-image.js";
import { DaybreakError, throwIfAborted } from "../../../src/errors.js";
import { encodePng } from "../../../src/media/png.js";
import type { DrawingContext } from "../../../src/server/drawing/context.js";
import { maxServedReferencePixels } from "../../../src/server/drawing/limits.js";
import { decodeReferences, readReferences } from "../../../src/server/drawing/reference-files.js";
import type { ImageSource } from "../../../src/server/drawing/references.js";
import { solidImage } from "../../media/synthetic.js";
import { callerOf, refusal } from "../refusal.js";

const caller = callerOf();

/** A decoder that knows one mistake. */
const context = {
  model: { bounds: { references: { limits: referenceLimits } } },
  workers: {
    decodeReference: async (bytes: Uint8Array, _limits: unknown, signal: AbortSignal) => {
      throwIfAborted(signal);
      if (bytes.length === 0) throw new DaybreakError("reference.not_an_image", "got nothing");
      if (bytes[0] === 0) throw new TypeError("a defect");
      return { width: 1, height: 1, data: bytes };
    },
  },
} as unknown as DrawingContext;

const small = encodePng(solidImage(100, 80, [1, 2, 3]));
const dataUri = (bytes: Uint8Array) => `data:;base64,${Buffer.from(bytes).toString("base64")}`;
const sources = (...urls: string[]): ImageSource[] =>
  urls.map((value, i) => ({ from: "url", url: value, param: `images[${i}]` }));

describe("references", () => {
  test("are judged by their headers, in order, and not decoded", async () => {
    const tiny = encodePng(solidImage(8, 16, [1, 2, 3]));
    const files = await readReferences(context, sources(dataUri(small), dataUri(tiny)), caller);
    expect(files.map(({ size, param }) => [size, param])).toEqual([
      [{ width: 100, height: 80 }, "images[0]"],
      [{ width: 64, height: 128 }, "images[1]"],
    ]);
    for (const [wrong, code] of [
      [dataUri(Buffer.from("text")), "reference_not_an_image"],
      [dataUri(small.subarray(0, 60)), "reference_truncated"],
      [dataUri(encodePng(solidImage(10, 200, [0, 0, 0]))), "reference_aspect_ratio"],
      ["data:", "reference_invalid"],
      ["data:,", "reference_not_an_image"],
    ] as const) {
      const error = await refusal(() => readReferences(context, sources(dataUri(small), wrong), caller));
      expect([error.status, error.code, error.param]).toEqual([400, code, "images[1]"]);
    }
  });

  test("of more than 128 megapixels together are refused at the one that is too much", async () => {
    const large = Buffer.from(encodePng(solidImage(8, 8, [0, 0, 0])));
    large.writeUInt32BE(8192, 16);
    large.writeUInt32BE(8192, 20);
    large.writeUInt32BE(crc32(large.subarray(12, 29)), 29);
    expect(maxServedReferencePixels).toBe(2 * 8192 ** 2);
    const two = sources(dataUri(large), dataUri(large));
    expect(await readReferences(context, two, caller)).toHaveLength(2);
    const error = await refusal(() => readReferences(context, [...two, ...sources(dataUri(small))], caller));
    expect([error.status, error.code, error.param]).toEqual([400, "reference_too_many_pixels", "images[0]"]);
  });

  test("what decoding refuses is the fault of the member that held it, what is a defect is not", async () => {
    const file = (bytes: Uint8Array, param: string) => ({ bytes, size: { width: 1, height: 1 }, param });
    const { signal } = new AbortController();
    const good = file(Uint8Array.of(1, 2, 3), "a");
    expect(await decodeReferences(context, [good], signal)).toHaveLength(1);
    const error = await refusal(() => decodeReferences(context, [good, file(new Uint8Array(0), "b")], signal));
    expect([error.status, error.code, error.param]).toEqual([400, "reference_not_an_image", "b"]);
    await expect(decodeReferences(context, [file(Uint8Array.of(0), "c")], signal)).rejects.toThrow(TypeError);
    const left = decodeReferences(context, [good, good], AbortSignal.abort());
    await expect(left).rejects.toMatchObject({ code: "request.cancelled" });
  });
});
