// What a caller asks of the engine and what it gets back: plain data, no GPU.
// Owns the limits on a request; `engine.ts` checks every request against them before any work starts.

import { DaybreakError, type ErrorCode } from "../errors.js";
import { checkSeed, randomSeed } from "./rng.js";

/** Longest prompt, chat template included, in tokens: the sequence that FLUX.2 [klein] was trained with. */
export const maxPromptTokens = 512;
/** Sides are multiples of this many pixels (8× VAE, 2× patchify). */
export const sizeMultiple = 16;
export const maxSide = 4096;
export const maxPixels = 4 * 1024 * 1024;
export const maxSteps = 1000;
export const maxNumImages = 64;
export const maxReferences = 16;
export const maxPartialImages = 3;
/** Frames of a latent walk: 15 seconds at 16 a second, and one. */
export const maxWalkFrames = 241;

/** Pixels, row-major from the top left: `data` is [height, width, 3], 8-bit sRGB. */
export type RgbImage = { width: number; height: number; data: Uint8Array };

/** The engine's arithmetic: `f32` runs anywhere; `f16` packs operands (never accumulators or residuals) into 16 bits. */
export type Precision = "auto" | "f32" | "f16";

export type GenerateRequest = {
  /** Any text, also empty; together with the chat template at most {@link maxPromptTokens} tokens. */
  prompt: string;
  /** What the second pass of classifier-free guidance is given; default "". */
  negativePrompt?: string;
  /** Pixels, a multiple of 16. Default: the first reference's, else the checkpoint's `sample_size`. */
  width?: number;
  height?: number;
  /** Denoising steps; default 4 for a distilled checkpoint, 50 otherwise. */
  steps?: number;
  /** 0 ≤ seed < 2⁶⁴; image i uses seed + i mod 2⁶⁴. Default: drawn at random. */
  seed?: bigint;
  /** Guidance scale; > 1 runs the negative prompt as well, on checkpoints that are not distilled. Default 4.0 there. */
  guidance?: number;
  /** Default 1. */
  numImages?: number;
  /**
   * A latent walk instead of separate images: `frames` pictures of the one prompt, from noise that goes from the seed's to
   * that of seed + 1 and back, a loop; see latent-walk.ts. Frame 0 is the picture of `seed`, which all frames name. Goes
   * without `latents` and with numImages 1; progress counts the frames as images. 1 to {@link maxWalkFrames} frames.
   */
  walk?: { frames: number };
  /** Images to edit or to take things from. */
  references?: RgbImage[];
  /** Explicit starting noise, [1, C, h, w] row-major, instead of the seed's; with numImages 1 only. */
  latents?: { shape: number[]; data: Float32Array };
  /** Honoured at every progress event, and within steps and stages between submissions, until the result is there. */
  signal?: AbortSignal;
  onProgress?: (event: ProgressEvent) => void;
  /**
   * Takes each image when it is finished; the next is begun when the returned promise is fulfilled. The result's `images`
   * are empty then, so that many images are never in memory at once. What it throws fails the request.
   */
  onImage?: (image: GeneratedImage, index: number) => void | Promise<void>;
  /** Previews of each image, 0 to {@link maxPartialImages}, at most steps − 1; default 0. They change no image. */
  partialImages?: number;
  /** Takes the previews: what the image would be if the velocity stayed as it is after a step. Awaited as `onImage` is. */
  onPartialImage?: (image: RgbImage, at: PartialImagePosition) => void | Promise<void>;
  /** Receives what the stages computed, under the names of reference traces; `detail` adds the inner tensors. */
  trace?: TraceSink;
};

export type TraceTensor = {
  dtype: "F32" | "I32" | "U8";
  shape: number[];
  data: Float32Array | Int32Array | Uint8Array;
};
export type TraceSink = { detail: boolean; write: (name: string, tensor: TraceTensor) => void };

/** What an engine is busy with: `tune` and `load` while it opens, then the stages of a request in their order. */
export type Stage = "tune" | "load" | "prompt" | "references" | "denoise" | "decode";

/**
 * `done` of `total` units of `stage` are complete: operations while tuning, bytes while loading, references, steps while
 * denoising (of `image`), 0 or 1 otherwise. Each stage begins with 0 and ends with `total`.
 */
export type ProgressEvent = { stage: Stage; done: number; total: number; image: number; numImages: number };

/** Milliseconds spent in each stage, and from the request's turn to its result. */
export type Timings = {
  prompt_ms: number;
  references_ms: number;
  denoise_ms: number;
  decode_ms: number;
  total_ms: number;
};

/** Preview `index` of `image`, both from 0, made after `step`, from 1. */
export type PartialImagePosition = { image: number; index: number; step: number };

export type GeneratedImage = RgbImage & { seed: bigint };

/** `timings` are for the whole request, all images together; `warnings` are for a person to read. */
export type GenerateResult = { images: GeneratedImage[]; timings: Timings; warnings: string[] };

/** What a checkpoint decides about requests that leave something open. */
export type RequestDefaults = {
  isDistilled: boolean;
  /** Default side, pixels. */
  sampleSize: number;
  /** C channels of the latents. */
  latentChannels: number;
  /** Pixels that a latent position covers on each axis. */
  tokenPixels: number;
};

type Distillation = Pick<RequestDefaults, "isDistilled">;

export function defaultSteps({ isDistilled }: Distillation): number {
  return isDistilled ? 4 : 50;
}

/** 1: no second pass. */
export function defaultGuidance({ isDistilled }: Distillation): number {
  return isDistilled ? 1 : 4;
}

/** A request with nothing left open and every value checked. */
export type ResolvedRequest = {
  prompt: string;
  negativePrompt: string;
  width: number;
  height: number;
  steps: number;
  seed: bigint;
  guidance: number;
  /** Whether a second pass with the negative prompt runs. */
  isGuided: boolean;
  /** Of a walk, its frames. */
  numImages: number;
  isWalk: boolean;
  /** Previews per image, below `steps`. */
  partialImages: number;
  latents: Float32Array | undefined;
  warnings: string[];
};

/**
 * Checks a request and fills in what it leaves open.
 * @param first size of the first prepared reference, which gives the default size
 * Errors: `request.*`.
 */
export function resolveRequest(
  request: GenerateRequest,
  defaults: RequestDefaults,
  first?: { width: number; height: number },
): ResolvedRequest {
  const { prompt, negativePrompt = "", seed = randomSeed(), partialImages = 0, walk } = request;
  const floor = (side: number) => Math.floor(side / sizeMultiple) * sizeMultiple;
  const width = request.width ?? floor(first?.width ?? defaults.sampleSize);
  const height = request.height ?? floor(first?.height ?? defaults.sampleSize);
  const steps = request.steps ?? defaultSteps(defaults);
  const guidance = request.guidance ?? defaultGuidance(defaults);
  checkSize(width, height);
  checkSeed(seed);
  checkInteger("request.steps_invalid", "steps", steps, maxSteps);
  checkInteger("request.num_images_invalid", "images", request.numImages ?? 1, maxNumImages);
  if (walk) checkWalk(request, walk);
  checkInteger("request.partial_images_invalid", "partial images", partialImages, maxPartialImages, 0);
  if (!(Number.isFinite(guidance) && guidance >= 0 && guidance <= 1000)) {
    throw new DaybreakError("request.guidance_invalid", `got guidance ${guidance}, expected a number from 0 to 1000`);
  }
  for (const [name, text] of Object.entries({ prompt, "negative prompt": negativePrompt })) {
    if (typeof text === "string") continue;
    throw new DaybreakError("request.prompt_invalid", `got a ${name} of type ${typeof text}, expected a string`);
  }
  if ((request.references?.length ?? 0) > maxReferences) {
    const got = request.references?.length;
    throw new DaybreakError("reference.too_many", `got ${got} references, expected at most ${maxReferences}`);
  }
  const latents = checkLatents(request, defaults, width, height);
  const isGuided = guidance > 1 && !defaults.isDistilled;
  const warnings: string[] = [];
  if (!isGuided && ((request.guidance ?? 1) > 1 || negativePrompt !== "")) {
    const why = defaults.isDistilled ? "this checkpoint is distilled" : `guidance is ${guidance}, not above 1`;
    warnings.push(`guidance and negative prompt are ignored: ${why}`);
  }
  return {
    ...{ prompt, negativePrompt, width, height, steps, seed, guidance, isGuided, latents, warnings },
    numImages: walk?.frames ?? request.numImages ?? 1,
    isWalk: walk !== undefined,
    // After the last step there is nothing to guess.
    partialImages: request.onPartialImage ? Math.min(partialImages, steps - 1) : 0,
  };
}

function checkSize(width: number, height: number): void {
  for (const side of [width, height]) {
    if (!Number.isInteger(side) || side % sizeMultiple !== 0 || side < sizeMultiple || side > maxSide) {
      throw new DaybreakError(
        "request.size_invalid",
        `got ${width}×${height} pixels, expected sides that are multiples of ${sizeMultiple}, from ${sizeMultiple} to ${maxSide}`,
      );
    }
  }
  if (width * height > maxPixels) {
    throw new DaybreakError(
      "request.size_invalid",
      `got ${width}×${height} = ${width * height} pixels, expected at most ${maxPixels}: make a side smaller`,
    );
  }
}

function checkInteger(code: ErrorCode, name: string, n: number, max: number, min = 1): void {
  if (!Number.isInteger(n) || n < min || n > max) {
    throw new DaybreakError(code, `got ${n} ${name}, expected an integer from ${min} to ${max}`);
  }
}

function checkWalk({ numImages = 1, latents }: GenerateRequest, { frames }: { frames: number }): void {
  checkInteger("request.walk_invalid", "frames", frames, maxWalkFrames);
  if (numImages === 1 && !latents) return;
  const got = latents ? "latents" : `${numImages} images`;
  throw new DaybreakError(
    "request.walk_invalid",
    `got a walk and ${got}, expected a walk alone: its frames are the images`,
  );
}

function checkLatents(
  { latents, numImages = 1 }: GenerateRequest,
  { latentChannels, tokenPixels }: RequestDefaults,
  width: number,
  height: number,
): Float32Array | undefined {
  if (!latents) return undefined;
  if (numImages !== 1) {
    throw new DaybreakError("request.latents_invalid", `got latents for ${numImages} images, they go with one image`);
  }
  if (!Array.isArray(latents.shape) || !(latents.data instanceof Float32Array)) {
    const got = `shape ${typeof latents.shape} and data ${latents.data?.constructor?.name ?? typeof latents.data}`;
    throw new DaybreakError(
      "request.latents_invalid",
      `got latents with ${got}, expected an array of extents and a Float32Array`,
    );
  }
  const expected = [1, latentChannels, height / tokenPixels, width / tokenPixels];
  const count = expected.reduce((product, n) => product * n, 1);
  const fits = latents.shape.length === 4 && latents.shape.every((n, i) => n === expected[i]);
  if (!fits || latents.data.length !== count) {
    throw new DaybreakError(
      "request.latents_invalid",
      `got latents [${latents.shape}] of ${latents.data.length} values, expected [${expected}] for ${width}×${height} pixels`,
    );
  }
  if (!latents.data.every(Number.isFinite)) {
    throw new DaybreakError("request.latents_invalid", "the latents hold values that are NaN or infinite");
  }
  return latents.data;
}
