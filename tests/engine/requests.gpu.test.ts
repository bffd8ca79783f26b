// What the engine makes of requests: refusals that come before any work, sizes, progress, and the order of several calls.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.js";
import type { GenerateRequest, ProgressEvent } from "../../src/engine/request.js";
import type { ErrorCode } from "../../src/errors.js";
import { baseSource } from "./checkpoints.js";
import { draw, openShared, openTiny, pattern, small, testGpu } from "./open.js";
import { type GpuSpy, resetCounts, spyOn } from "./spied-gpu.js";
import { failure, sameBytes } from "./weights/fixtures.js";

let engine: Engine;
let spy: GpuSpy;
beforeAll(async () => {
  spy = spyOn(await testGpu());
  engine = await openShared({ gpu: spy.gpu });
});
afterAll(() => engine.close());

it("a request may be judged before it is generated, once for several pictures", async () => {
  const request = { ...small, prompt: "a red circle", seed: 3n };
  const judged = engine.judge(request);
  expect(judged).toMatchObject({ width: 32, height: 32, steps: expect.any(Number), seed: 3n });
  expect(judged.prompt).toMatchObject({ text: "a red circle", ids: expect.any(Int32Array) });
  const asked = await engine.generate(request);
  for (let i = 0; i < 2; i++) expect((await engine.generate(judged)).images).toEqual(asked.images);
  expect(() => engine.judge({ prompt: "", steps: 0 })).toThrow(
    expect.objectContaining({ code: "request.steps_invalid" }),
  );
});

it("what is no request is refused with a code, and so is a judged one with something else in it", async () => {
  const nothing = await failure(engine.generate(undefined as never), "request.option_invalid");
  expect(nothing.message).toBe("got undefined for generate, expected an object with its options");
  const judged = engine.judge({ ...small, step: undefined } as GenerateRequest);
  const { message } = await failure(
    engine.generate({ ...judged, walk: { frames: 2 } } as never),
    "request.option_invalid",
  );
  expect(message).toMatch(/^got an option "walk" for generate, expected prompt, /);
});

describe("a refused request does nothing on the device", () => {
  const longPrompt = "a red circle on a blue background ".repeat(100);
  const cases: [what: string, request: Record<string, unknown>, code: ErrorCode, message: RegExp][] = [
    ["half a surrogate pair", { prompt: "a \ud83d cat" }, "request.prompt_invalid", /surrogate pair at position 2/],
    [
      "a prompt of too many tokens",
      { prompt: longPrompt },
      "request.prompt_too_long",
      /got a prompt of 718 tokens.*at most 512/,
    ],
    ["17 references", { references: Array(17).fill(pattern(64, 64)) }, "reference.too_many", /got 17 references/],
    ["references that are no list", { references: pattern(64, 64) }, "reference.not_an_image", /type object/],
    [
      "a reference without pixels",
      { references: [{ width: 64, height: 64 }] },
      "reference.not_an_image",
      /data undefined/,
    ],
    [
      "a reference that is cut",
      { references: [{ ...pattern(64, 64), height: 65 }] },
      "reference.truncated",
      /expected 12480/,
    ],
    ["a reference too small", { references: [pattern(64, 63)] }, "reference.too_small", /64×63/],
    ["a size", { width: 15 }, "request.size_invalid", /15×32/],
    [
      "a misspelt option",
      { step: 4 },
      "request.option_invalid",
      /^got an option "step" for generate, expected prompt, /,
    ],
    ["latents", { latents: { shape: [1, 2], data: new Float32Array(2) } }, "request.latents_invalid", /\[1,32,2,2\]/],
  ];
  it.each(cases)("%s", async (_, request, code, message) => {
    const device = spy.devices[0]!;
    resetCounts(device);
    const error = await failure(engine.generate({ ...small, ...request } as GenerateRequest), code);
    expect(error.message).toMatch(message);
    expect(device.counts).toEqual({ buffers: 0, modules: 0, pipelines: 0, groups: 0, writes: 0, submissions: 0 });
    await expect(draw(engine)).resolves.toMatchObject({ width: 32, height: 32 });
  });

  it("a negative prompt of too many tokens, where it counts", async () => {
    const base = await openTiny({ source: await baseSource() });
    const request = { ...small, negativePrompt: longPrompt };
    await failure(base.generate(request), "request.prompt_too_long");
    // A negative prompt that is ignored may be anything.
    const { warnings } = await base.generate({ ...request, guidance: 1 });
    expect(warnings).toEqual(["guidance and negative prompt are ignored: guidance is 1, not above 1"]);
  });
});

describe("the size of a picture that names none", () => {
  it("is the checkpoint's sample_size", async () => {
    expect(engine.info.sampleSize).toBe(256);
    const { images } = await engine.generate({ prompt: "a", steps: 1, signal: undefined });
    expect(images[0]).toMatchObject({ width: 256, height: 256 });
    expect(images[0]!.data.length).toBe(256 * 256 * 3);
  });

  it("is the first reference's, cropped to multiples of 16", async () => {
    const references = [pattern(100, 71), pattern(64, 64)];
    const { images } = await engine.generate({ prompt: "a", steps: 1, references });
    expect(images[0]).toMatchObject({ width: 96, height: 64 });
  });
});

describe("steps and guidance that a request names are those that run", () => {
  it("4 and no second pass by default on a distilled checkpoint", async () => {
    const { images } = await engine.generate({ ...small, steps: undefined });
    expect(sameBytes(images[0]!.data, (await draw(engine, { steps: 4 })).data)).toBe(true);
    expect(sameBytes(images[0]!.data, (await draw(engine, { steps: 3 })).data)).toBe(false);
  });

  it("an ignored guidance changes nothing but the warning", async () => {
    const plain = await engine.generate(small);
    const warned = await engine.generate({ ...small, guidance: 4, negativePrompt: "blurry" });
    expect(plain.warnings).toEqual([]);
    expect(warned.warnings).toHaveLength(1);
    expect(sameBytes(plain.images[0]!.data, warned.images[0]!.data)).toBe(true);
  });

  it("guidance and the negative prompt count on a checkpoint that is not distilled", async () => {
    const base = await openTiny({ source: await baseSource() });
    expect(base.info.isDistilled).toBe(false);
    const pictures = [];
    for (const request of [{}, { guidance: 4 }, { guidance: 2 }, { guidance: 1 }, { negativePrompt: "blurry" }]) {
      pictures.push(await draw(base, request));
    }
    const [byDefault, four, two, none, negative] = pictures.map((picture) => picture.data) as Uint8Array[];
    expect(sameBytes(byDefault!, four!)).toBe(true);
    for (const other of [two!, none!, negative!]) expect(sameBytes(byDefault!, other)).toBe(false);
    // Without guidance the weights alone decide, and they are the distilled checkpoint's.
    expect(sameBytes(none!, (await draw(engine)).data)).toBe(true);
  });
});

describe("progress", () => {
  it("goes through the stages in order, and within each from 0 to its total", async () => {
    const events: ProgressEvent[] = [];
    const references = [pattern(64, 64), pattern(96, 64)];
    await engine.generate({ ...small, steps: 2, numImages: 2, references, onProgress: (event) => events.push(event) });
    const lines = events.map(({ stage, done, total, image }) => `${stage} ${done}/${total} of ${image}`);
    const image = (i: number) => [
      `denoise 0/2 of ${i}`,
      `denoise 1/2 of ${i}`,
      `denoise 2/2 of ${i}`,
      `decode 0/1 of ${i}`,
      `decode 1/1 of ${i}`,
    ];
    const before = [
      "prompt 0/1 of 0",
      "prompt 1/1 of 0",
      "references 0/2 of 0",
      "references 1/2 of 0",
      "references 2/2 of 0",
    ];
    expect(lines).toEqual([...before, ...image(0), ...image(1)]);
    expect(new Set(events.map((event) => event.numImages))).toEqual(new Set([2]));
  });

  it("of loading rises from 0 to the bytes of all weights", async () => {
    const events: ProgressEvent[] = [];
    const { info } = await openTiny({ onProgress: (event) => events.push(event) });
    expect(events[0]).toMatchObject({ stage: "load", done: 0, total: info.weightBytes });
    expect(events.at(-1)).toMatchObject({ stage: "load", done: info.weightBytes, total: info.weightBytes });
    const done = events.map((event) => event.done);
    expect(done).toEqual(done.toSorted((a, b) => a - b));
    expect(new Set(done).size).toBeGreaterThan(3);
  });

  it("that throws fails the request and leaves the engine usable", async () => {
    const mistake = new Error("no such progress bar");
    const onProgress = ({ stage }: ProgressEvent) => {
      if (stage === "decode") throw mistake;
    };
    await expect(engine.generate({ ...small, onProgress })).rejects.toBe(mistake);
    await expect(draw(engine)).resolves.toMatchObject({ seed: 7n });
  });

  it("is measured: the stages' times add up to no more than the total", async () => {
    const { timings } = await engine.generate({ ...small, references: [pattern(64, 64)] });
    const { total_ms, ...stages } = timings;
    const sum = Object.values(stages).reduce((total, ms) => total + ms, 0);
    for (const ms of Object.values(stages)) expect(ms).toBeGreaterThan(0);
    expect(sum).toBeLessThanOrEqual(total_ms);
    expect((await engine.generate(small)).timings.references_ms).toBe(0);
  });
});

describe("several calls at once", () => {
  it("run one after the other, each with its own picture", async () => {
    const requests = [
      { ...small, prompt: "a red circle", seed: 1n },
      { ...small, prompt: "a blue square", seed: 2n, width: 64 },
      { ...small, prompt: "a red circle", seed: 3n, steps: 2 },
    ];
    const alone: Uint8Array[] = [];
    for (const request of requests) alone.push((await draw(engine, request)).data);
    const running: string[] = [];
    const results = await Promise.all(
      requests.map((request, i) =>
        engine.generate({ ...request, onProgress: ({ stage }) => running.push(`${i} ${stage}`) }),
      ),
    );
    for (const [i, { images }] of results.entries()) expect(sameBytes(images[0]!.data, alone[i]!)).toBe(true);
    const order = running.map((line) => line[0]);
    expect(order).toEqual(order.toSorted());
  });

  it("do not fail each other", async () => {
    const [good, bad, last] = [engine.generate(small), engine.generate({ ...small, steps: 0 }), engine.generate(small)];
    await failure(bad, "request.steps_invalid");
    expect(sameBytes((await good).images[0]!.data, (await last).images[0]!.data)).toBe(true);
  });
});

describe("closing", () => {
  it("waits for the requests that were made, and refuses later ones", async () => {
    const own = spyOn(await testGpu());
    const other = await openTiny({ gpu: own.gpu });
    const [first, second] = [other.generate(small), other.generate({ ...small, seed: 8n })];
    let isClosed = false;
    const closing = other.close().then(() => {
      isClosed = true;
    });
    await failure(other.generate(small), "engine.closed");
    await first;
    expect(isClosed).toBe(false);
    await expect(second).resolves.toMatchObject({ images: [{ seed: 8n }] });
    await closing;
    await failure(other.generate(small), "engine.closed");
    expect(own.devices[0]!.buffers.size).toBe(0);
  });

  it("twice is as good as once, and both calls wait", async () => {
    const other = await openTiny();
    const running = other.generate(small);
    let done = false;
    void running.then(() => {
      done = true;
    });
    void other.close();
    await other.close();
    expect(done).toBe(true);
  });
});
