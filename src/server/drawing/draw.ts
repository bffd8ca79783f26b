// From what a request wishes to finished files: judges the wish against the served model, runs it through the queue
// and the engine, encodes what comes out. Both APIs draw through here. Knows no bodies, no events, no URLs.

import { createHash } from "node:crypto";
import type { GeneratedImage, ResolvedRequest, RgbImage, Timings } from "../../engine/request.js";
import { maxPromptTokens, resolveRequest } from "../../engine/request.js";
import { imageSeed } from "../../engine/rng.js";
import { DaybreakError } from "../../errors.js";
import { parameterTexts } from "../../media/parameters.js";
import type { AssetFacts } from "../../media/store.js";
import type { Caller, ServerContext } from "../context.js";
import { ApiError, toApiError } from "../http/api-error.js";
import { maxDistilledSteps, maxOutputSide, minOutputSide, type OutputFormat } from "../responses/request-schema.js";
import type { Job } from "./jobs.js";

const sizeStep = 16;
/** Of a prompt, in UTF-16 units: far more than 512 tokens of any language. Tokenising longer ones blocks everybody. */
export const maxPromptLength = 16_384;
/** Of combining marks and of white space in a row: tokenisers take quadratic time on either. */
const maxMarks = 256;
const maxWhiteSpace = 4096;

/** What is to be drawn, as a request says it; undefined and null: the model's default. */
export type Wish = {
  prompt: string;
  truncation: "auto" | "disabled";
  negativePrompt?: string | null;
  width?: number | null;
  height?: number | null;
  steps?: number | null;
  guidance?: number | null;
  seed?: number | null;
  numImages: number;
  partialImages: number;
  /** Decoded, at most 1024² of area. */
  references: RgbImage[];
  output: { type: "image"; format: OutputFormat; quality: number } | Video;
  /** The path of an option in the request's body, for errors. */
  param: (option: "prompt" | "width" | "steps" | "guidance_scale" | "negative_prompt") => string;
};

export type Video = { type: "video"; frames: number; framesPerSecond: number };

/** A wish that the served model can fulfil; nothing is left open. */
export type Drawing = ResolvedRequest & {
  references: RgbImage[];
  partialImages: number;
  output: Wish["output"];
  promptTokens: number;
  /** Latent tokens of the references, and of all pictures or frames. */
  referenceTokens: number;
  outputTokens: number;
  /** Of each picture; a video has one. */
  seeds: number[];
  /** The member of the request that says the size, for errors. */
  sizeParam: string;
};

/** A finished picture. */
export type ImageFile = { bytes: Uint8Array; format: OutputFormat; width: number; height: number; seed: number };

export type DrawingTimings = {
  queue: number;
  encode_prompt: number;
  denoise: number;
  decode: number;
  encode_file: number;
};

export type DrawingHooks = {
  /** The caller's API key, for fairness. */
  caller: string | undefined;
  signal: AbortSignal;
  /** The job has left the queue. */
  onStart?: () => void;
  onStep?: (at: { image: number; step: number; steps: number; eta_ms: number }) => void;
  onPartial?: (file: ImageFile, at: { image: number; index: number }) => void;
  onImage?: (file: ImageFile, index: number) => Promise<void>;
  /** A finished MP4 file at a temporary path of the store, which the callee takes over. */
  onVideo?: (path: string) => Promise<void>;
};

/**
 * Judges a wish: everything that can be refused is refused here, before a job exists.
 * Throws ApiError `invalid_request`.
 */
export function planDrawing({ tokenizer, defaults, options }: ServerContext, wish: Wish): Drawing {
  const { references, output, numImages, partialImages } = wish;
  const warnings: string[] = [];
  let { prompt } = wish;
  checkRuns(prompt, wish.param("prompt"));
  if (wish.negativePrompt) {
    checkLength(wish.negativePrompt, wish.param("negative_prompt"));
    checkRuns(wish.negativePrompt, wish.param("negative_prompt"));
  }
  if (wish.truncation === "auto") {
    const given = beginning(prompt, maxPromptLength);
    const cut = located(wish.param("prompt"), () => tokenizer.truncate(given));
    if (cut.prompt !== prompt) warnings.push(`the prompt was cut to its first ${cut.length} tokens`);
    prompt = cut.prompt;
  }
  checkLength(prompt, wish.param("prompt"));
  const size = defaultSize(references[0], options.defaultSize);
  const maxModelSteps = defaults.isDistilled ? maxDistilledSteps : Number.POSITIVE_INFINITY;
  if (wish.steps && wish.steps > maxModelSteps) {
    const message = `got ${wish.steps} steps, this distilled model takes 1 to ${maxModelSteps}`;
    throw new ApiError("invalid_request", "request_steps_invalid", message, { param: wish.param("steps") });
  }
  try {
    const resolved = resolveRequest(
      {
        prompt,
        negativePrompt: wish.negativePrompt ?? undefined,
        width: wish.width ?? size.width,
        height: wish.height ?? size.height,
        steps: wish.steps ?? undefined,
        guidance: wish.guidance ?? undefined,
        seed: BigInt(wish.seed ?? randomSafeSeed()),
        numImages,
        partialImages,
        walk: output.type === "video" ? { frames: output.frames } : undefined,
        references,
      },
      defaults,
    );
    const { length } = located(wish.param("prompt"), () => tokenizer.encode(prompt));
    if (resolved.isGuided) {
      located(wish.param("negative_prompt"), () => tokenizer.encode(resolved.negativePrompt));
    }
    const seeds = Array.from({ length: numImages }, (_, i) => Number(imageSeed(resolved.seed, i)));
    return {
      ...resolved,
      warnings: [...warnings, ...resolved.warnings],
      references,
      partialImages,
      output,
      promptTokens: length,
      referenceTokens: references.reduce((sum, image) => sum + latentTokens(image, defaults.tokenPixels), 0),
      outputTokens: latentTokens(resolved, defaults.tokenPixels) * resolved.numImages,
      seeds,
      sizeParam: wish.param("width"),
    };
  } catch (error) {
    if (error instanceof DaybreakError && error.code === "request.size_invalid") {
      throw new ApiError("invalid_request", "request_size_invalid", error.message, { param: wish.param("width") });
    }
    throw toApiError(error);
  }
}

function checkLength({ length }: string, param: string): void {
  if (length <= maxPromptLength) return;
  const most = `${maxPromptTokens} tokens (and never more than ${maxPromptLength} characters)`;
  const message = `got a prompt of ${length} characters, expected at most ${most}: shorten it`;
  throw new ApiError("invalid_request", "request_prompt_too_long", message, { param });
}

/** The first `length` UTF-16 units of a text, one less where that would cut a character in two. */
export function beginning(text: string, length: number): string {
  const cut = text.slice(0, length);
  return /[\ud800-\udbff]$/.test(cut) && /^[\udc00-\udfff]/.test(text.slice(length, length + 1))
    ? cut.slice(0, -1)
    : cut;
}

/**
 * Refuses a text whose first {@link maxPromptLength} characters a tokeniser would work on for long, before it does.
 * Throws ApiError `request_prompt_invalid`.
 * @param param the member of the request that holds it
 */
export function checkRuns(text: string, param: string): void {
  for (const [run] of text.slice(0, maxPromptLength).matchAll(/\p{M}+|\s+/gu)) {
    const isSpace = /^\s/.test(run);
    const most = isSpace ? maxWhiteSpace : maxMarks;
    if (run.length <= most) continue;
    const what = isSpace ? "white space characters" : "combining marks";
    const message = `got ${run.length} ${what} in a row, expected at most ${most}: leave them out`;
    throw new ApiError("invalid_request", "request_prompt_invalid", message, { param });
  }
}

/** What is wrong with a text is reported as its member's fault. */
function located<T>(param: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const { type, code, message } = toApiError(error);
    throw new ApiError(type, code, message, { param, cause: error });
  }
}

/** The first reference's size, brought into the bounds of outputs without changing its shape more than it must. */
function defaultSize(first: RgbImage | undefined, fallback: { width: number; height: number }) {
  if (!first) return fallback;
  const scale = Math.max(1, minOutputSide / Math.min(first.width, first.height));
  const bound = (side: number) =>
    Math.min(maxOutputSide, Math.max(minOutputSide, Math.round((side * scale) / sizeStep) * sizeStep));
  return { width: bound(first.width), height: bound(first.height) };
}

/** A seed that every JSON reader can hold. */
function randomSafeSeed(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return (high & 0x1fffff) * 2 ** 32 + low;
}

/**
 * Queues a drawing. The result settles after the last hook has. Nothing half-finished stays after an error.
 * Throws ApiError when the queue is full; the result rejects with ApiError.
 */
export function submitDrawing(
  context: ServerContext,
  drawing: Drawing,
  hooks: DrawingHooks,
): Job<{ timings: DrawingTimings; warnings: string[] }> {
  const submitted = performance.now();
  const { caller } = hooks;
  const work = async (signal: AbortSignal) => {
    const queue = performance.now() - submitted;
    context.metrics.queueWait.observe(queue / 1000);
    hooks.onStart?.();
    const { engine, encode_file } =
      drawing.output.type === "video"
        ? await drawVideo(context, drawing, drawing.output, { ...hooks, signal })
        : await drawImages(context, drawing, drawing.output, { ...hooks, signal });
    const timings = {
      queue,
      encode_prompt: engine.prompt_ms + engine.references_ms,
      denoise: engine.denoise_ms,
      decode: engine.decode_ms,
      encode_file,
    };
    for (const [stage, ms] of Object.entries(timings)) {
      if (stage !== "queue") context.metrics.stages.observe({ stage }, ms / 1000);
    }
    return { timings, warnings: drawing.warnings };
  };
  const bytes = drawing.references.reduce((sum, { data }) => sum + data.length, 0);
  const job = context.jobs.submit(work, { caller, signal: hooks.signal, bytes });
  const result = job.result.catch((error: unknown) => {
    throw toApiError(error, drawing.sizeParam);
  });
  return { isWaiting: job.isWaiting, result };
}

type Drawn = { engine: Timings; encode_file: number };

/** Files are encoded while the engine draws the next picture; the first failure stops everything. */
async function drawImages(
  context: ServerContext,
  drawing: Drawing,
  { format, quality }: { format: OutputFormat; quality: number },
  hooks: DrawingHooks,
): Promise<Drawn> {
  const { workers, metrics } = context;
  const failure = new AbortController();
  let encode_file = 0;
  const encode = async (image: RgbImage, seed: bigint): Promise<ImageFile> => {
    const { width, height } = image;
    const began = performance.now();
    const bytes = await workers.encodeImage(image, { format, quality, text: texts(context, drawing, seed) });
    encode_file += performance.now() - began;
    return { bytes, format, width, height, seed: Number(seed) };
  };
  const pending: Promise<void>[] = [];
  const keep = (work: Promise<void>) => {
    pending.push(work);
    work.catch((error) => failure.abort(error));
  };
  const onImage = (image: GeneratedImage, index: number) => {
    metrics.images.inc();
    keep(encode(image, image.seed).then((file) => hooks.onImage?.(file, index)));
  };
  try {
    const { timings } = await context.engine.draw(engineRequest(drawing), {
      signal: AbortSignal.any([hooks.signal, failure.signal]),
      onProgress: stepWatcher(hooks),
      onImage,
      onPartialImage: async (image, { image: i, index }) => {
        hooks.onPartial?.(await encode(image, imageSeed(drawing.seed, i)), { image: i, index });
      },
    });
    await Promise.all(pending);
    return { engine: timings, encode_file };
  } catch (error) {
    await Promise.allSettled(pending);
    throw failure.signal.aborted ? failure.signal.reason : error;
  }
}

/** Frames go from the engine to the encoder one by one; neither runs far ahead of the other. */
async function drawVideo(
  context: ServerContext,
  drawing: Drawing,
  { framesPerSecond }: Video,
  hooks: DrawingHooks,
): Promise<Drawn> {
  const { workers, store, metrics } = context;
  const { width, height } = drawing;
  const path = store.temporaryPath("mp4");
  const writer = await workers.openVideo({ path, width, height, framesPerSecond });
  let encode_file = 0;
  const timed = async (work: Promise<void>) => {
    const began = performance.now();
    await work;
    encode_file += performance.now() - began;
  };
  try {
    const { timings } = await context.engine.draw(engineRequest(drawing), {
      signal: hooks.signal,
      onProgress: stepWatcher(hooks),
      onImage: async (frame) => {
        metrics.images.inc();
        await timed(writer.write(frame));
      },
    });
    await timed(writer.finish());
    await hooks.onVideo?.(path);
    return { engine: timings, encode_file };
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

function engineRequest(drawing: Drawing) {
  const { prompt, negativePrompt, width, height, steps, guidance, seed, numImages, references, partialImages } =
    drawing;
  const walk = drawing.output.type === "video" ? { frames: drawing.output.frames } : undefined;
  return {
    ...{ prompt, negativePrompt, width, height, steps, guidance, seed, references, walk },
    numImages: walk ? 1 : numImages,
    partialImages: partialImages > 0 ? partialImages : undefined,
  };
}

/** Turns the engine's progress into steps and an estimate of what is left of the denoising of all pictures. */
function stepWatcher({ onStep }: DrawingHooks) {
  let began = 0;
  return (event: { stage: string; done: number; total: number; image: number; numImages: number }) => {
    if (event.stage !== "denoise") return;
    const { done, total, image, numImages } = event;
    if (done === 0) {
      if (image === 0) began = performance.now();
      return;
    }
    const finished = image * total + done;
    const eta_ms = ((performance.now() - began) / finished) * (numImages * total - finished);
    onStep?.({ image, step: done, steps: total, eta_ms: Math.round(eta_ms) });
  };
}

function texts({ options, engine }: ServerContext, drawing: Drawing, seed: bigint): Record<string, string> | undefined {
  if (!options.metadata) return undefined;
  const { prompt, negativePrompt, width, height, steps, guidance, isGuided, references } = drawing;
  const parameters = {
    ...{ prompt, width, height, steps, seed },
    negativePrompt: isGuided ? negativePrompt : undefined,
    guidance: isGuided ? guidance : 1,
    model: options.modelName,
    precision: engine.info.precision,
    references: references.length,
  };
  return parameterTexts(parameters, options.version);
}

/** Prompts are private: call it only where the options want them in the log. */
export function logPrompt({ log }: ServerContext, { requestId }: Caller, prompt: string, response?: string): void {
  log.info({ request: requestId, response, prompt }, "drawing");
}

function latentTokens({ width, height }: { width: number; height: number }, tokenPixels: number): number {
  return Math.floor(width / tokenPixels) * Math.floor(height / tokenPixels);
}

/** What the store is to know of a picture. */
export function imageFacts({ format, width, height, seed }: ImageFile, { prompt }: Drawing): AssetFacts {
  const facts = { mime: `image/${format}`, isPublic: true, seed: String(seed), promptHash: promptHash(prompt) };
  return { ...facts, width, height, format };
}

/** Stands for a prompt where the prompt itself has no place. */
export function promptHash(prompt: string): string {
  return createHash("sha256").update(prompt).digest("hex").slice(0, 16);
}
