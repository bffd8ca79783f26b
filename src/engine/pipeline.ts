// READ FIRST: one request, top to bottom. Six stages, each a few calls on things that were recorded beforehand:
//   1 encode prompt → 2 encode references → 3 noise → 4 schedule → 5 denoise → 6 decode
// Knows the order of the stages and nothing of how they are computed; models/ has that, kernels/ the arithmetic.

import { throwIfAborted } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import type { Device } from "./gpu/device.js";
import type { Readback } from "./gpu/readback.js";
import { byteLength, copyTensors, rowBytes, sliceRows, type Tensor, writeTensor } from "./gpu/tensor.js";
import { slerp, walkPosition } from "./latent-walk.js";
import { latentsToTokens, tokensToLatents } from "./models/flux2/latents.js";
import { normalizeReference } from "./models/flux2/reference-image.js";
import { schedule, timestepEmbedding } from "./models/flux2/schedule.js";
import { healthWords, judgeHealth } from "./ops/health.js";
import { healthSlots, modulatedSteps, type PicturePlan } from "./picture-plan.js";
import type { PromptEncoder, TapTensors } from "./prompt-encoder.js";
import type {
  GeneratedImage,
  GenerateRequest,
  GenerateResult,
  ProgressEvent,
  ResolvedRequest,
  RgbImage,
  Timings,
  TraceSink,
} from "./request.js";
import { gaussianLatents, imageSeed } from "./rng.js";

/** What a request runs on. */
export type Pipeline = {
  device: Device;
  readback: Readback;
  checkpoint: Checkpoint;
  promptEncoder: PromptEncoder;
  plan: PicturePlan;
};

export type Watcher = {
  signal?: AbortSignal;
  onProgress?: (event: ProgressEvent) => void;
  onImage?: GenerateRequest["onImage"];
  onPartialImage?: GenerateRequest["onPartialImage"];
  trace?: TraceSink;
};

/** Generates the images of one request. `references` are prepared; total_ms of the timings is left to the caller. */
export async function generateImages(
  pipeline: Pipeline,
  request: ResolvedRequest,
  references: RgbImage[],
  watcher: Watcher,
): Promise<GenerateResult> {
  const { numImages, seed } = request;
  const timings: Timings = { prompt_ms: 0, references_ms: 0, denoise_ms: 0, decode_ms: 0, total_ms: 0 };
  const timed = async <T>(stage: Exclude<keyof Timings, "total_ms">, work: () => Promise<T>): Promise<T> => {
    const begin = performance.now();
    const result = await work();
    timings[stage] += performance.now() - begin;
    return result;
  };

  await timed("prompt_ms", () => encodePrompts(pipeline, request, watcher)); // 1
  if (references.length > 0)
    await timed("references_ms", () => encodeReferences(pipeline, request, references, watcher)); // 2
  const images: GeneratedImage[] = [];
  const noiseOf = noiseSource(pipeline, request);
  for (let i = 0; i < numImages; i++) {
    await timed("denoise_ms", () => denoise(pipeline, request, noiseOf(i), i, watcher)); // 3, 4, 5
    const picture = await timed("decode_ms", () => decode(pipeline, request, i, watcher)); // 6
    const image = { ...picture, seed: request.isWalk ? seed : imageSeed(seed, i) };
    if (!watcher.onImage) images.push(image);
    await watcher.onImage?.(image, i);
    throwIfAborted(watcher.signal);
  }
  return { images, timings, warnings: request.warnings };
}

/** Stage 1: the text context of the positive pass and, with guidance, of the negative one. */
async function encodePrompts(pipeline: Pipeline, request: ResolvedRequest, watcher: Watcher): Promise<void> {
  const { plan, checkpoint, readback } = pipeline;
  const { positive, negative } = plan.contexts;
  const { trace } = watcher;
  report(watcher, request, "prompt", 0, 1, 0);
  if (negative) await encodePrompt(pipeline, request.negativePrompt, negative, watcher, "negative.embeds");
  await encodePrompt(pipeline, request.prompt, positive, watcher, "prompt.embeds");
  if (trace) {
    const { ids, length } = checkpoint.tokenizer.encode(request.prompt);
    trace.write("prompt.input_ids", { dtype: "I32", shape: [ids.length], data: ids });
    trace.write("prompt.length", { dtype: "I32", shape: [1], data: Int32Array.of(length) });
    if (trace.detail) await traceTaps(trace, readback, plan.prompt.taps);
  }
  report(watcher, request, "prompt", 1, 1, 0);
}

/** Encodes a prompt and projects it, unless that is what the context holds. */
async function encodePrompt(
  { plan, promptEncoder, readback }: Pipeline,
  prompt: string,
  context: PicturePlan["contexts"]["positive"],
  { trace, signal }: Watcher,
  name: string,
): Promise<void> {
  if (context.holds === prompt && !trace) return;
  context.holds = undefined;
  await promptEncoder.encode(prompt, plan.prompt.list, { isFresh: trace?.detail, signal });
  await context.list.submit(signal);
  context.holds = prompt;
  if (trace) await traceMatrix(trace, readback, name, promptEncoder.tensors.embeds);
}

/** Stage 2: every reference through the VAE's encoder; the same for all images of the request. */
async function encodeReferences(
  { device, plan, readback }: Pipeline,
  request: ResolvedRequest,
  references: RgbImage[],
  watcher: Watcher,
): Promise<void> {
  const { trace } = watcher;
  report(watcher, request, "references", 0, references.length, 0);
  for (const [i, image] of references.entries()) {
    const reference = plan.references[i] as PicturePlan["references"][number];
    const content = await contentOf(image);
    if (reference.holds !== content || trace) {
      reference.holds = undefined;
      writeTensor(device, reference.picture, normalizeReference(image));
      await reference.list.submit(watcher.signal);
      await judge(readback, reference.health, [0], `the VAE's encoder of reference ${i + 1}`);
      reference.holds = content;
    }
    if (trace) await traceMatrix(trace, readback, `reference.${i}.tokens`, reference.tokens);
    report(watcher, request, "references", i + 1, references.length, 0);
  }
}

/** A hash of an image's pixels. */
async function contentOf({ data }: RgbImage): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", data as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Stage 3: the starting noise of each image, [C, h, w]. */
function noiseSource({ plan }: Pipeline, { latents, isWalk, seed, numImages }: ResolvedRequest) {
  const { h, w } = plan.grid;
  const drawn = (i: number) => gaussianLatents(imageSeed(seed, i), plan.latents.cols, h, w);
  if (latents) return () => latents;
  if (!isWalk) return drawn;
  const [from, to] = [drawn(0), drawn(1)];
  return (frame: number) => slerp(from, to, walkPosition(frame, numImages));
}

/** Stages 4 and 5: sigmas, and Euler steps along the transformer's velocity. */
async function denoise(
  pipeline: Pipeline,
  request: ResolvedRequest,
  noise: Float32Array,
  image: number,
  watcher: Watcher,
): Promise<void> {
  const { device, plan, readback } = pipeline;
  const { steps, guidance } = request;
  const { trace } = watcher;
  const { h, w } = plan.grid;
  const channels = plan.latents.cols;

  writeTensor(device, plan.latents, latentsToTokens(noise, channels));
  // Sigmas depend on the output's tokens only, also with references.
  const { sigmas, timesteps } = schedule(steps, h * w);
  const sinusoids = timestepEmbedding(timesteps, plan.sinusoids.cols);
  trace?.write("latents.noise", { dtype: "F32", shape: [1, channels, h, w], data: noise });
  trace?.write("sigmas", { dtype: "F32", shape: [steps + 1], data: sigmas });

  const stepValues = new Float32Array(plan.step.cols);
  const previews = previewSteps(request.partialImages, steps);
  report(watcher, request, "denoise", 0, steps, image);
  for (let i = 0; i < steps; i++) {
    stepValues[0] = (sigmas[i + 1] as number) - (sigmas[i] as number);
    stepValues[1] = guidance;
    writeTensor(device, plan.step, stepValues);
    if (i % modulatedSteps === 0) await modulate(pipeline, sinusoids, i, watcher.signal);
    takeModulation(pipeline, i % modulatedSteps);
    await plan.denoise.submit(watcher.signal);
    const stage = `the transformer in step ${i + 1} of ${steps}`;
    await judge(readback, plan.health, [healthSlots.velocity, healthSlots.latents], stage);
    if (trace) await traceStep(trace, pipeline, i);
    report(watcher, request, "denoise", i + 1, steps, image);
    const index = previews.indexOf(i + 1);
    if (index < 0) continue;
    const preview = await readPicture(pipeline, request, sigmas[i + 1] as number, watcher.signal);
    await watcher.onPartialImage?.(preview, { image, index, step: i + 1 });
    throwIfAborted(watcher.signal);
  }
}

/** The modulation of the steps from `first` on, as many as are computed at once; rows past the last step mean nothing. */
async function modulate(
  { device, plan }: Pipeline,
  sinusoids: Float32Array,
  first: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { rows, cols } = plan.sinusoids;
  const values = new Float32Array(rows * cols);
  values.set(sinusoids.subarray(first * cols, (first + rows) * cols));
  writeTensor(device, plan.sinusoids, values);
  await plan.modulate.submit(signal);
}

/** Makes a row of the modulation table the current one. */
function takeModulation({ device, plan }: Pipeline, row: number): void {
  const { table, current } = plan.modulation;
  const names = ["img", "txt", "single", "out"] as const;
  copyTensors(
    device,
    names.map((name) => [sliceRows(table[name], row, row + 1), current[name]]),
  );
}

/** After which steps, from 1, `count` previews are made: evenly spread, never after the last. */
function previewSteps(count: number, steps: number): number[] {
  // At most steps − 1 lie at least one step apart, so that rounding merges none and moves none to 0 or to the end.
  return Array.from({ length: count }, (_, j) => Math.round(((j + 1) * steps) / (count + 1)));
}

/** Stage 6: latents to pixels. */
async function decode(
  pipeline: Pipeline,
  request: ResolvedRequest,
  image: number,
  watcher: Watcher,
): Promise<RgbImage> {
  const { plan, readback } = pipeline;
  const { width, height } = request;
  const { trace } = watcher;
  report(watcher, request, "decode", 0, 1, image);
  const { data } = await readPicture(pipeline, request, 0, watcher.signal);
  await judge(readback, plan.health, [healthSlots.picture], "the VAE's decoder");
  if (trace) {
    for (const [name, { height: h, width: w }] of plan.images) {
      const tensor = plan.taps.get(name) as Tensor;
      const chw = tokensToLatents(await readback.f32(tensor), tensor.cols);
      trace.write(name, { dtype: "F32", shape: [tensor.cols, h, w], data: chw });
    }
    trace.write("image", { dtype: "U8", shape: [height, width, 3], data });
  }
  report(watcher, request, "decode", 1, 1, image);
  return { width, height, data };
}

/**
 * The picture of the latents at `sigma` as they are expected to end: x₀ = x − σ·v with the last step's velocity v. The
 * latents on the device stay as they are; at σ = 0 they are what is decoded.
 */
async function readPicture(
  { device, plan, readback }: Pipeline,
  request: ResolvedRequest,
  sigma: number,
  signal: AbortSignal | undefined,
) {
  const { width, height } = request;
  const stepValues = new Float32Array(plan.step.cols);
  stepValues[0] = -sigma;
  writeTensor(device, plan.step, stepValues);
  await plan.decode.submit(signal);
  const data = await readback.bytes(plan.pixels.storage.buffer as GPUBuffer, 0, width * height * 3);
  return { width, height, data };
}

/** Reads the health tensor, a few words, and judges the given slots of it. */
async function judge(readback: Readback, health: Tensor, slots: number[], stage: string): Promise<void> {
  const bytes = await readback.bytes(health.storage.buffer as GPUBuffer, 0, byteLength(health));
  for (const slot of slots) {
    judgeHealth(new Uint32Array(bytes.buffer, slot * rowBytes(health), healthWords), stage);
  }
}

/** Tells the caller how far the request is. Every report is a boundary at which the request can be cancelled. */
function report(
  watcher: Watcher,
  request: ResolvedRequest,
  stage: ProgressEvent["stage"],
  done: number,
  total: number,
  image: number,
): void {
  watcher.onProgress?.({ stage, done, total, image, numImages: request.numImages });
  throwIfAborted(watcher.signal);
}

async function traceMatrix(trace: TraceSink, readback: Readback, name: string, tensor: Tensor): Promise<void> {
  // Vectors are tensors of one row here; traces hold them without it. A picture of one token has one row as well.
  const isVector = /^step\.0\.(temb|mod\.\w+)$/.test(name);
  const shape = isVector ? [tensor.cols] : [tensor.rows, tensor.cols];
  trace.write(name, { dtype: "F32", shape, data: await readback.f32(tensor) });
}

async function traceTaps(trace: TraceSink, readback: Readback, taps: TapTensors): Promise<void> {
  for (const [name, tensor] of taps) await traceMatrix(trace, readback, name, tensor);
}

/** After step i: velocity and latents; after the first one the inner tensors, too. */
async function traceStep(trace: TraceSink, { plan, readback }: Pipeline, i: number): Promise<void> {
  await traceMatrix(trace, readback, `step.${i}.velocity`, plan.taps.get("velocity") as Tensor);
  await traceMatrix(trace, readback, `step.${i}.latents`, plan.latents);
  if (i > 0 || !trace.detail) return;
  for (const [name, tensor] of plan.taps) {
    if (name.startsWith("step.0.")) await traceMatrix(trace, readback, name, tensor);
  }
}
