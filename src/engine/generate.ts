// READ FIRST: one request, top to bottom, over the stages that a model gives:
//   1 prompts → 2 conditions (references) → 3 noise → 4 steps → 5 decode
// Knows the order of the stages and nothing of how they are computed; models/ has that, kernels/ the arithmetic.

import { throwIfAborted } from "../errors.js";
import type { Run, Stages } from "./family.js";
import type {
  GeneratedImage,
  GenerateHooks,
  GenerateResult,
  JudgedRequest,
  ProgressEvent,
  RgbImage,
  Timings,
  TraceSink,
} from "./request.js";
import { slerp, walkPosition } from "./sampling/latent-walk.js";
import { gaussianNoise, imageSeed } from "./sampling/noise.js";
import { judgeSlots } from "./stages.js";

/** A request on its way: what it is run on, what it asks, who follows it. */
type Generation = { stages: Stages; request: JudgedRequest; run: Run; hooks: GenerateHooks };

/** Generates what one request asks for. `total_ms` of the timings is left to the caller. */
export async function generate(
  stages: Stages,
  request: JudgedRequest,
  run: Run,
  hooks: GenerateHooks,
): Promise<GenerateResult> {
  const generation: Generation = { stages, request, run, hooks };
  const { numImages, firstImage, seed, isWalk } = request;
  const timings: Timings = { prompt_ms: 0, references_ms: 0, denoise_ms: 0, decode_ms: 0, total_ms: 0 };
  const timed = async (stage: Exclude<keyof Timings, "total_ms">, work: () => Promise<void>): Promise<void> => {
    const begin = performance.now();
    await work();
    timings[stage] += performance.now() - begin;
  };

  await timed("prompt_ms", () => encodePrompts(generation)); // 1
  if (stages.conditions.length > 0) await timed("references_ms", () => encodeConditions(generation)); // 2
  const images: GeneratedImage[] = [];
  const frames: RgbImage[] = [];
  const noiseOf = noiseSource(generation);
  for (let i = firstImage; i < numImages; i++) {
    await timed("denoise_ms", () => denoise(generation, noiseOf(i), i)); // 3, 4
    const isVideo = stages.decode.frames > 1;
    for (let frame = 0; frame < stages.decode.frames; frame++) {
      let picture: RgbImage | undefined;
      await timed("decode_ms", async () => {
        picture = await decode(generation, frame, i); // 5
      });
      if (isVideo) await deliver(picture!, frame, frames, hooks.onFrame);
      else await deliver({ ...picture!, seed: isWalk ? seed : imageSeed(seed, i) }, i, images, hooks.onImage);
      throwIfAborted(run.signal);
    }
  }
  return { images, frames, timings, warnings: request.warnings };
}

/** To whoever takes results one by one, else among those that are returned. */
async function deliver<T>(
  result: T,
  index: number,
  kept: T[],
  take: ((result: T, index: number) => void | Promise<void>) | undefined,
): Promise<void> {
  if (take) await take(result, index);
  else kept.push(result);
}

/** Stage 1: the negative prompt first, so that what a stage leaves behind is the positive one's. */
async function encodePrompts(generation: Generation): Promise<void> {
  const { stages, request, run, hooks } = generation;
  const { positive, negative } = stages.prompts;
  const { trace } = hooks;
  report(generation, "prompt", 0, 1);
  const passes = [
    [negative, request.negativePrompt],
    [positive, request.prompt],
  ] as const;
  for (const [stage, prompt] of passes) {
    if (!stage || !prompt) continue;
    await stage.encode(prompt, run, { isFresh: trace?.detail });
    if (trace) await stage.trace?.(trace, prompt, run);
  }
  report(generation, "prompt", 1, 1);
}

/** Stage 2: the same for all images of the request. */
async function encodeConditions(generation: Generation): Promise<void> {
  const { stages, request, run, hooks } = generation;
  const { conditions } = stages;
  report(generation, "references", 0, conditions.length);
  for (const [i, condition] of conditions.entries()) {
    await condition.encode(request.references[i] as RgbImage, run);
    if (hooks.trace) await condition.trace?.(hooks.trace, run);
    report(generation, "references", i + 1, conditions.length);
  }
}

/** Stage 3: the starting noise of each image. */
function noiseSource({ stages, request }: Generation): (image: number) => Float32Array {
  const { latents, isWalk, seed, numImages } = request;
  const drawn = (i: number) => gaussianNoise(imageSeed(seed, i), stages.noise.shape);
  if (latents) return () => latents;
  if (!isWalk) return drawn;
  const [from, to] = [drawn(0), drawn(1)];
  return (frame) => slerp(from, to, walkPosition(frame, numImages));
}

/** Stage 4: from noise to latents, step by step. */
async function denoise(generation: Generation, noise: Float32Array, image: number): Promise<void> {
  const { stages, request, run, hooks } = generation;
  stages.noise.write(noise, run);
  const steps = stages.steps(request.steps, request.guidance);
  if (hooks.trace) traceStart(hooks.trace, generation, noise, steps);
  const previews = hooks.onPartialImage ? previewSteps(request.partialImages, steps.length) : [];
  report(generation, "denoise", 0, steps.length, image);
  for (const [i, step] of steps.entries()) {
    await step.run(run);
    await judgeSlots(step.health, run.readback);
    if (hooks.trace) await step.trace?.(hooks.trace, run);
    report(generation, "denoise", i + 1, steps.length, image);
    const index = previews.indexOf(i + 1);
    if (index < 0) continue;
    const preview = await stages.decode.read(middleFrame(stages), step.next, run);
    await hooks.onPartialImage?.(preview, { image, index, step: i + 1 });
    throwIfAborted(run.signal);
  }
}

function middleFrame({ decode }: Stages): number {
  return Math.floor(decode.frames / 2);
}

/** After which steps, from 1, `count` previews are made: evenly spread, never after the last. */
function previewSteps(count: number, steps: number): number[] {
  // At most steps − 1 lie at least one step apart, so that rounding merges none and moves none to 0 or to the end.
  return Array.from({ length: count }, (_, j) => Math.round(((j + 1) * steps) / (count + 1)));
}

/** Stage 5: latents to the pixels of one frame. */
async function decode(generation: Generation, frame: number, image: number): Promise<RgbImage> {
  const { stages, run, hooks } = generation;
  const { decode: stage } = stages;
  if (frame === 0) report(generation, "decode", 0, stage.frames, image);
  const picture = await stage.read(frame, 0, run);
  await judgeSlots(stage.health, run.readback);
  if (hooks.trace && frame === stage.frames - 1) {
    await stage.trace?.(hooks.trace, run);
    const { width, height, data } = picture;
    hooks.trace.write("image", { dtype: "U8", shape: [height, width, 3], data });
  }
  report(generation, "decode", frame + 1, stage.frames, image);
  return picture;
}

/** Tells the caller how far the request is. Every report is a boundary at which the request can be cancelled. */
function report(
  { request, run, hooks }: Generation,
  stage: ProgressEvent["stage"],
  done: number,
  total: number,
  image = 0,
): void {
  hooks.onProgress?.({ stage, done, total, image, numImages: request.numImages });
  throwIfAborted(run.signal);
}

function traceStart(trace: TraceSink, { stages }: Generation, noise: Float32Array, steps: ReturnType<Stages["steps"]>) {
  trace.write("latents.noise", { dtype: "F32", shape: [1, ...stages.noise.shape], data: noise });
  const sigmas = Float32Array.from([...steps.map(({ sigma }) => sigma), steps.at(-1)?.next ?? 0]);
  trace.write("sigmas", { dtype: "F32", shape: [sigmas.length], data: sigmas });
}
