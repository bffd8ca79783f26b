// What a request leaves open or says in other words: sizes from shapes, and warnings about what nobody reads.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomSafeSeed } from "../../../src/engine/sampling/noise.js";
import { aspectRatioPattern, isShapeIgnored, shapedSize } from "../../../src/server/drawing/aspect-ratio.js";
import { maxServedSide, minServedSide } from "../../../src/server/drawing/limits.js";
import { unknownWarnings } from "../../../src/server/drawing/unknown-options.js";
import { unknownMembers } from "../../../src/server/http/schema.js";
import { imageEditBody } from "../../../src/server/images/schema.js";
import { createResponseBody } from "../../../src/server/responses/request-schema.js";
import { refusal } from "../refusal.js";

describe("shapes", () => {
  const square = { width: 1024, height: 1024 };
  test.each([
    ["1:1", square, {}, 1024, 1024],
    ["16:9", square, {}, 1360, 768],
    ["9:16", square, {}, 768, 1360],
    ["3:2", { width: 512, height: 512 }, {}, 624, 416],
    ["2.39:1", square, {}, 1584, 656],
    ["16:1", { width: 2048, height: 2048 }, {}, 2048, 128],
    ["16:1", { width: 256, height: 256 }, {}, 2048, 128],
    ["1:16", { width: 128, height: 128 }, {}, 128, 2048],
    ["16:9", square, { width: 512 }, 512, 288],
    ["16:9", square, { height: 288 }, 512, 288],
    ["16:9", square, { width: 256, height: 512 }, 256, 512],
    ["auto", square, { width: 512 }, 512, 1024],
  ])("%s of %j with %j", (aspectRatio, open, sides, width, height) => {
    expect(shapedSize({ ...sides, aspectRatio, open }, 16, "p")).toEqual({ width, height });
  });

  test("are met within the bounds of sides, or refused", async () => {
    const part = fc.integer({ min: 1, max: 9999 });
    const side = fc.integer({ min: 8, max: 128 }).map((n) => n * 16);
    await fc.assert(
      fc.asyncProperty(part, part, side, side, async (across, down, width, height) => {
        const aspectRatio = `${across}:${down}`;
        expect(aspectRatio).toMatch(aspectRatioPattern);
        const ask = () => shapedSize({ aspectRatio, open: { width, height } }, 16, "p");
        if (across > 16 * down || down > 16 * across) {
          expect((await refusal(ask)).code).toBe("request_size_invalid");
          return;
        }
        const sides = Object.values(ask());
        for (const one of sides) expect(one % 16 === 0 && one >= minServedSide && one <= maxServedSide).toBe(true);
        // Each side is rounded by half of 16 at most.
        const [low, high] = [(sides[0]! - 8) / (sides[1]! + 8), (sides[0]! + 8) / (sides[1]! - 8)];
        expect(across / down).toBeGreaterThanOrEqual(low - 1e-9);
        expect(across / down).toBeLessThanOrEqual(high + 1e-9);
      }),
    );
  });

  test("a shape beside a whole size is ignored, and said to be", () => {
    expect(isShapeIgnored({ aspectRatio: "16:9", size: "512x512" })).toBe(true);
    expect(isShapeIgnored({ aspectRatio: "16:9", width: 512, height: 512 })).toBe(true);
    expect(isShapeIgnored({ aspectRatio: "16:9", size: "auto", width: 512 })).toBe(false);
    expect(isShapeIgnored({ aspectRatio: "auto", size: "512x512" })).toBe(false);
  });
});

describe("unknown members", () => {
  const dropped = (body: object) => unknownMembers(createResponseBody, { input: "a", ...body });

  test("are named by their paths; known, empty and meaningless ones are not", () => {
    expect(dropped({ width: 512, model: "m", user: "u", seed: 1, x: null, y: false, z: {}, n: 2 })).toEqual(["width"]);
    expect(dropped({ metadata: { a: "b" }, input: [{ role: "user", content: "a", extra: 1 }] })).toEqual([]);
    expect(dropped({ tools: [{ type: "image_generation", quality: "high", steps: 3 }] })).toEqual(["tools[0].steps"]);
    expect(dropped({ text: { verbosity: "low", style: "x" } })).toEqual(["text.style"]);
    expect(dropped(JSON.parse('{"__proto__": {"n": 2}, "constructor": 1}'))).toEqual(["__proto__", "constructor"]);
    const edit = {
      prompt: "a",
      images: [{ image_url: "data:,", file_id: "f" }],
      quality: "low",
      num_inference_steps: 2,
    };
    expect(unknownMembers(imageEditBody, edit)).toEqual(["images[0].file_id", "num_inference_steps"]);
  });

  test("are told in few words, with the option that they mean", () => {
    const places = { steps: "steps", guidance_scale: "cfg_scale", negative_prompt: "negative_prompt" };
    expect(
      unknownWarnings(["num_inference_steps", "guidanceScale", "tools[0].NegativePrompt", "sampler"], places),
    ).toEqual([
      '"num_inference_steps" is not known here and was ignored: steps says that',
      '"guidanceScale" is not known here and was ignored: cfg_scale says that',
      '"tools[0].NegativePrompt" is not known here and was ignored: negative_prompt says that',
      '"sampler" is not known here and was ignored',
    ]);
    const many = unknownWarnings(
      Array.from({ length: 10_000 }, (_, i) => `${"x".repeat(1000)}${i}\n`),
      places,
    );
    expect(many).toHaveLength(9);
    expect(many.at(-1)).toBe("9992 further members are not known here and were ignored");
    for (const warning of many) expect(warning).toMatch(/^.{0,120}$/);
  });
});

test("seeds that are drawn leave room for those of the further images", () => {
  for (let i = 0; i < 100; i++) {
    const seed = randomSafeSeed(64);
    expect(seed >= 0n && seed + 63n <= BigInt(Number.MAX_SAFE_INTEGER)).toBe(true);
  }
});
