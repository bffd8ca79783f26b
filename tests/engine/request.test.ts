// What a request may hold, and what it means where it leaves something open. No device: these refusals come first.

import { describe, expect, it } from "vitest";
import { boundsOf } from "../../src/engine/models/flux2/bounds.js";
import { type CheckpointConfig, promptTokens } from "../../src/engine/models/flux2/config.js";
import {
  type GenerateRequest,
  isJudged,
  type JudgedRequest,
  judgeRequest,
  maxNumImages,
  maxReferences,
  maxSteps,
  type RequestBounds,
  recheckRequest,
  shapeOf,
  type Tokenizer,
} from "../../src/engine/request.js";
import type { ErrorCode } from "../../src/errors.js";
import { pattern } from "./open.js";
import { failure } from "./weights/fixtures.js";

/** Bounds of a checkpoint with klein's sizes, but for those that are given. */
function boundsFor({ isDistilled = true, scaleFactor = 8 }): RequestBounds {
  const config = {
    modelIndex: { isDistilled },
    transformer: { inChannels: 128 },
    vae: { sampleSize: 1024, scaleFactor },
  };
  return boundsOf(config as CheckpointConfig);
}

const klein = boundsFor({});
const base = boundsFor({ isDistilled: false });

/** Every word is a token; counts how often it is asked. */
function wordTokenizer() {
  const counted = { calls: 0 };
  const read = (text: string) => {
    counted.calls += 1;
    const words = text.split(" ");
    const length = Math.min(words.length, promptTokens);
    return { text: words.slice(0, length).join(" "), ids: new Int32Array(promptTokens), length, total: words.length };
  };
  const tokenizer: Tokenizer = { encode: read, truncate: read, maxId: 9 };
  return { tokenizer, counted };
}

/** A request as callers without types may make it. */
function judge(request: Record<string, unknown>, bounds = klein): JudgedRequest {
  return judgeRequest({ prompt: "a cat", ...request } as GenerateRequest, { bounds, ...wordTokenizer() });
}

describe("a value that no picture can be made of is refused", () => {
  const noise = (shape: number[], data = new Float32Array(128 * 4)) => ({
    width: 32,
    height: 32,
    latents: { shape, data },
  });
  const withValue = (value: number) => noise([1, 128, 2, 2], new Float32Array(128 * 4).fill(value, 77, 78));
  const cases: [what: string, request: Record<string, unknown>, code: ErrorCode, message: RegExp][] = [
    ["width 0", { width: 0, height: 64 }, "request.size_invalid", /got 0×64 pixels.*multiples of 16, from 16 to 4096/],
    ["width 15", { width: 15, height: 64 }, "request.size_invalid", /15×64/],
    ["height 17", { width: 64, height: 17 }, "request.size_invalid", /64×17/],
    ["height −16", { width: 64, height: -16 }, "request.size_invalid", /64×-16/],
    ["width 4112", { width: 4112, height: 16 }, "request.size_invalid", /from 16 to 4096/],
    [
      "4096×1040, above the area",
      { width: 4096, height: 1040 },
      "request.size_invalid",
      /4259840 pixels.*at most 4194304/,
    ],
    ["a width that is NaN", { width: Number.NaN, height: 64 }, "request.size_invalid", /NaN×64/],
    ["an infinite width", { width: Number.POSITIVE_INFINITY, height: 64 }, "request.size_invalid", /Infinity×64/],
    ["a width that is a string", { width: "64", height: 64 }, "request.size_invalid", /multiples of 16/],
    ["a height that is a list", { width: 64, height: [64] }, "request.size_invalid", /multiples of 16/],
    ["0 steps", { steps: 0 }, "request.steps_invalid", /got 0 steps, expected an integer from 1 to 1000/],
    ["1.5 steps", { steps: 1.5 }, "request.steps_invalid", /got 1.5 steps/],
    ["1001 steps", { steps: maxSteps + 1 }, "request.steps_invalid", /got 1001 steps/],
    ["steps that are a string", { steps: "4" }, "request.steps_invalid", /got 4 steps/],
    [
      "seed −1",
      { seed: -1n },
      "request.seed_invalid",
      /got seed -1, expected an integer from 0 to 18446744073709551615/,
    ],
    ["seed 2⁶⁴", { seed: 2n ** 64n }, "request.seed_invalid", /got seed 18446744073709551616/],
    ["a seed that is a number", { seed: 7 }, "request.seed_invalid", /got seed 7, a number and no bigint/],
    ["a seed that is null", { seed: null }, "request.seed_invalid", /got seed null/],
    [
      "guidance NaN",
      { guidance: Number.NaN },
      "request.guidance_invalid",
      /got guidance NaN, expected a number from 0/,
    ],
    ["guidance −1", { guidance: -1 }, "request.guidance_invalid", /got guidance -1/],
    ["guidance that is a string", { guidance: "4" }, "request.guidance_invalid", /got guidance 4/],
    ["0 images", { numImages: 0 }, "request.num_images_invalid", /got 0 images, expected an integer from 1 to 64/],
    ["65 images", { numImages: maxNumImages + 1 }, "request.num_images_invalid", /got 65 images/],
    ["no prompt", { prompt: undefined }, "request.prompt_invalid", /got a prompt of type undefined/],
    ["a prompt that is a number", { prompt: 5 }, "request.prompt_invalid", /got a prompt of type number/],
    [
      "a negative prompt that is a list",
      { negativePrompt: [] },
      "request.prompt_invalid",
      /got a negative prompt of type obj/,
    ],
    [
      "17 references",
      { references: Array(maxReferences + 1).fill(pattern(64, 64)) },
      "reference.too_many",
      /got 17.*most 16/,
    ],
    [
      "latents of another size",
      noise([1, 128, 4, 1]),
      "request.latents_invalid",
      /\[1,128,4,1\].*expected \[1,128,2,2\] for 32×32/,
    ],
    ["latents without a batch", noise([128, 2, 2]), "request.latents_invalid", /\[128,2,2\]/],
    [
      "latents of too few values",
      noise([1, 128, 2, 2], new Float32Array(511)),
      "request.latents_invalid",
      /of 511 values/,
    ],
    ["latents with a NaN", withValue(Number.NaN), "request.latents_invalid", /NaN or infinite/],
    ["latents with an infinity", withValue(Number.NEGATIVE_INFINITY), "request.latents_invalid", /NaN or infinite/],
    [
      "latents for two images",
      { ...noise([1, 128, 2, 2]), numImages: 2 },
      "request.latents_invalid",
      /latents for 2 images/,
    ],
    [
      "latents without a shape",
      { latents: { data: new Float32Array(4) } },
      "request.latents_invalid",
      /expected an array/,
    ],
    [
      "latents that are plain numbers",
      noise([1, 128, 2, 2], Array(512).fill(0) as never),
      "request.latents_invalid",
      /Array/,
    ],
  ];
  it.each(cases)("%s", async (_, request, code, message) => {
    const error = await failure(() => judge(request), code);
    expect(error.message).toMatch(message);
  });
});

describe("a value at its limit is taken", () => {
  it.each<[string, Record<string, unknown>]>([
    ["the smallest size", { width: 16, height: 16 }],
    ["the longest side", { width: 4096, height: 16 }],
    ["the largest area", { width: 4096, height: 1024 }],
    ["one step", { steps: 1 }],
    ["1000 steps", { steps: 1000 }],
    ["seed 0", { seed: 0n }],
    ["seed 2⁶⁴ − 1", { seed: 2n ** 64n - 1n }],
    ["guidance 0", { guidance: 0 }],
    ["64 images", { numImages: 64 }],
    ["16 references", { references: Array(16).fill(pattern(64, 64)) }],
  ])("%s", (_, request) => {
    expect(judge(request)).toMatchObject(request);
  });

  it("an empty prompt", () => {
    expect(judge({ prompt: "" }).prompt).toMatchObject({ text: "" });
  });
});

describe("what a request leaves open", () => {
  it("is 4 steps, no guidance and the checkpoint's size on a distilled checkpoint", () => {
    expect(judge({})).toMatchObject({ width: 1024, height: 1024, steps: 4, numImages: 1, warnings: [] });
    expect(judge({}).negativePrompt).toBe(undefined);
  });

  it("is 50 steps and guidance 4 on one that is not", () => {
    expect(judge({}, base)).toMatchObject({ steps: 50, guidance: 4, negativePrompt: { text: "" }, warnings: [] });
  });

  it("is the first reference's size", () => {
    const references = [pattern(320, 192), pattern(64, 64)];
    expect(judge({ references })).toMatchObject({ width: 320, height: 192 });
    expect(judge({ references, width: 64 })).toMatchObject({ width: 64, height: 192 });
  });

  it("is a multiple of 16 also where a checkpoint's tokens are smaller", () => {
    const fine = boundsFor({ scaleFactor: 2 });
    expect(judge({ references: [pattern(76, 100)] }, fine)).toMatchObject({ width: 64, height: 96 });
  });

  it("is a seed that is not the same each time", () => {
    const seeds = new Set(Array.from({ length: 8 }, () => judge({}).seed));
    expect(seeds.size).toBe(8);
    for (const seed of seeds) expect(seed >= 0n && seed < 2n ** 64n).toBe(true);
  });
});

describe("a guidance or negative prompt that is ignored gives one warning, and nothing else gives any", () => {
  const distilled = ["guidance and negative prompt are ignored: this checkpoint is distilled"];
  const weak = ["guidance and negative prompt are ignored: guidance is 1, not above 1"];
  it.each<[string, RequestBounds, Record<string, unknown>, boolean, string[]]>([
    ["distilled, nothing given", klein, {}, false, []],
    ["distilled, guidance 4", klein, { guidance: 4 }, false, distilled],
    ["distilled, guidance 1, which changes nothing", klein, { guidance: 1 }, false, []],
    ["distilled, negative prompt", klein, { negativePrompt: "blurry" }, false, distilled],
    ["distilled, empty negative prompt", klein, { negativePrompt: "" }, false, []],
    ["distilled, both", klein, { guidance: 4, negativePrompt: "blurry" }, false, distilled],
    ["base, nothing given", base, {}, true, []],
    ["base, guidance 4 and negative prompt", base, { guidance: 4, negativePrompt: "blurry" }, true, []],
    ["base, negative prompt at the default guidance", base, { negativePrompt: "blurry" }, true, []],
    ["base, guidance 1", base, { guidance: 1 }, false, []],
    ["base, guidance 1 and negative prompt", base, { guidance: 1, negativePrompt: "blurry" }, false, weak],
    ["base, guidance just above 1", base, { guidance: 1.0001 }, true, []],
  ])("%s", (_, bounds, request, isGuided, warnings) => {
    const judged = judge(request, bounds);
    expect(judged.warnings).toEqual(warnings);
    expect(shapeOf(judged, bounds).isGuided).toBe(isGuided);
  });
});

describe("a judgement", () => {
  const references = [pattern(96, 64)];

  it("tokenises each prompt that counts once, and no other", () => {
    for (const [bounds, calls] of [
      [klein, 1],
      [base, 2],
    ] as const) {
      const { tokenizer, counted } = wordTokenizer();
      judgeRequest({ prompt: "a cat", negativePrompt: "a dog" }, { bounds, tokenizer });
      expect(counted.calls).toBe(calls);
    }
  });

  it("cuts a prompt that is too long where it is asked to, tokenising it once, and says so", () => {
    const { tokenizer, counted } = wordTokenizer();
    const prompt = Array(promptTokens + 8)
      .fill("word")
      .join(" ");
    const judged = judgeRequest({ prompt }, { bounds: klein, tokenizer }, { truncates: true });
    expect(judged.prompt.length).toBe(promptTokens);
    expect(judged.warnings).toEqual([`the prompt was cut to its first ${promptTokens} tokens`]);
    expect(counted.calls).toBe(1);
  });

  it("is told from a request, and holds after it has crossed to another process", () => {
    const judged = judge({ references }, base);
    expect(isJudged({ prompt: "a cat" })).toBe(false);
    const arrived = structuredClone(judged);
    expect(isJudged(arrived)).toBe(true);
    recheckRequest(arrived, { bounds: base, ...wordTokenizer() });
    expect(shapeOf(arrived, base)).toEqual(shapeOf(judged, base));
  });

  it.each<[string, Partial<Record<keyof JudgedRequest, unknown>>, ErrorCode]>([
    ["a side", { width: 17 }, "request.size_invalid"],
    ["steps", { steps: 0 }, "request.steps_invalid"],
    ["a seed", { seed: 7 }, "request.seed_invalid"],
    ["guidance", { guidance: Number.NaN }, "request.guidance_invalid"],
    ["images", { numImages: 65 }, "request.num_images_invalid"],
    ["previews", { partialImages: 4 }, "request.partial_images_invalid"],
    ["a reference that is cut", { references: [{ ...pattern(64, 64), height: 65 }] }, "reference.truncated"],
    ["fewer ids", { prompt: { text: "", ids: new Int32Array(3), length: 3 } }, "request.prompt_invalid"],
    [
      "ids beyond the vocabulary",
      { prompt: { text: "", ids: new Int32Array(512).fill(10), length: 3 } },
      "request.prompt_invalid",
    ],
    ["latents of another size", { latents: new Float32Array(5) }, "request.latents_invalid"],
  ])("with %s that is wrong is refused when it is checked again", async (_, changed, code) => {
    const arrived = { ...judge({}), ...changed } as JudgedRequest;
    await failure(() => recheckRequest(arrived, { bounds: klein, ...wordTokenizer() }), code);
  });
});
