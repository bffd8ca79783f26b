// What a caller asks of the engine and what it gets back: plain data, no GPU; and the one judgement of it. Owns the limits
// on a request that hold for every model; what depends on the model comes from its bounds.

import { DaybreakError, type ErrorCode } from "../errors.js";
import type { RgbImage, Size } from "./images.js";
import { checkNames, type NamesOf } from "./options.js";
import { checkReference, checkReferenceSize, type ReferenceLimits } from "./references.js";
import { checkSeed, randomSeed } from "./sampling/noise.js";

export const maxSide = 4096;
export const maxPixels = 4 * 1024 * 1024;
export const maxSteps = 1000;
export const maxNumImages = 64;
export const maxReferences = 16;
export const maxPartialImages = 3;
/** Frames of a latent walk: 15 seconds at 16 a second, and one. */
export const maxWalkFrames = 241;

export type { RgbImage, Size } from "./images.js";

/** The engine's arithmetic: `f32` runs anywhere; `f16` packs operands (never accumulators or residuals) into 16 bits. */
export type Precision = "auto" | "f32" | "f16";

export type GenerateRequest = {
  /** Any text, also empty; as many tokens as the model takes, see {@link RequestBounds}. */
  prompt: string;
  /** What the second pass of classifier-free guidance is given; default "". */
  negativePrompt?: string;
  /** Pixels, multiples of what the model demands (16). Default: the first reference's size, else the checkpoint's. */
  width?: number;
  height?: number;
  /** Denoising steps; default the model's: 4 for a distilled checkpoint, 50 otherwise. */
  steps?: number;
  /** 0 ≤ seed < 2⁶⁴; image i uses seed + i mod 2⁶⁴. Default: drawn at random. */
  seed?: bigint;
  /** Guidance scale; > 1 runs the negative prompt as well, on checkpoints that are not distilled. Default the model's, 4.0. */
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
  /** Previews of each image, 0 to {@link maxPartialImages}, at most steps − 1; default 0. They change no image. */
  partialImages?: number;
} & GenerateHooks;

/** How a caller follows and stops a request. */
export type GenerateHooks = {
  /** Honoured at every progress event, and within steps and stages between submissions, until the result is there. */
  signal?: AbortSignal;
  onProgress?: (event: ProgressEvent) => void;
  /**
   * Takes each image when it is finished; the next is begun when the returned promise is fulfilled. The result's `images`
   * are empty then, so that many images are never in memory at once. What it throws fails the request.
   */
  onImage?: (image: GeneratedImage, index: number) => void | Promise<void>;
  /** The same for each frame of a model whose result is a video; its `frames` are empty then. */
  onFrame?: (frame: RgbImage, index: number) => void | Promise<void>;
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

/**
 * Pictures are `images`, the frames of a video `frames`. `timings` are for the whole request, all of them together;
 * `warnings` are for a person to read.
 */
export type GenerateResult = { images: GeneratedImage[]; frames: RgbImage[]; timings: Timings; warnings: string[] };

/** What a model decides about requests: what it takes, and what it does where they leave something open. */
export type RequestBounds = {
  /** Sides are multiples of so many pixels. */
  sizeMultiple: number;
  /** Of what is drawn where neither the request nor a reference says; guidance 1 means that no second pass runs. */
  defaults: Size & { steps: number; guidance: number };
  /** A distilled checkpoint takes no guidance. */
  isDistilled: boolean;
  /** Of the longest prompt, with whatever its tokenizer adds to it. */
  promptTokens: number;
  references: ReferenceBounds;
  /** Frames of a result; 1: it is a picture. */
  frames: number;
  /** Extents of the latents of such a result, [C, h, w] or [C, f, h, w]. */
  latentShape(size: Size): number[];
  /** How many tokens stand for a picture of that size. */
  latentTokens(size: Size): number;
};

/** What a model takes as references. */
export type ReferenceBounds = {
  limits: ReferenceLimits;
  /** The size in which the model reads an image of that size. */
  preparedSize(size: Size): Size;
};

/** A prompt's tokens: `ids` padded to the model's number of them, of which the first `length` are the prompt's. */
export type TokenizedPrompt = { text: string; ids: Int32Array; length: number };

/** A prompt that fits, and the tokens of the whole, or of what was counted of it. */
export type TruncatedPrompt = TokenizedPrompt & { total: number };

export type Tokenizer = {
  /**
   * A prompt as the model reads it.
   * Errors: `request.prompt_invalid` (no string, lone surrogates), `request.prompt_too_long`.
   */
  encode(prompt: string): TokenizedPrompt;
  /**
   * A prompt that fits: itself, or the text of as many of its tokens, from the first, as there is room for.
   * Errors: `request.prompt_invalid`.
   */
  truncate(prompt: string): TruncatedPrompt;
  /** The largest id that `encode` can give: the embedding needs more rows than that. */
  maxId: number;
};

/** What decides how a result is computed: one that differs in nothing else needs no other plan. */
export type PictureShape = Size & {
  /** Sizes of the prepared references. */
  references: Size[];
  /** Whether a second pass with a negative prompt runs in every step. */
  isGuided: boolean;
};

/** A picture to plan for, as a request has it; of references only the sizes, in pixels. */
export type ExpectedPicture = Pick<GenerateRequest, "width" | "height" | "steps" | "guidance"> & {
  references?: readonly Size[];
};

/** A request with nothing left open and every value checked; plain data that crosses to other processes. */
export type JudgedRequest = Size & {
  prompt: TokenizedPrompt;
  /** Of the second pass; undefined where none runs. */
  negativePrompt: TokenizedPrompt | undefined;
  steps: number;
  seed: bigint;
  guidance: number;
  /** Of a walk, its frames. */
  numImages: number;
  /** Images before this one, from 0, are left out: they were drawn already, before the rest was put off. */
  firstImage: number;
  isWalk: boolean;
  /** Previews per image, below `steps`. */
  partialImages: number;
  /** As they were given: the model prepares them. */
  references: RgbImage[];
  latents: Float32Array | undefined;
  warnings: string[];
};

/** What is needed to judge a request: nothing of a model's weights. */
export type Judge = { bounds: RequestBounds; tokenizer: Tokenizer };

export type JudgeOptions = {
  /** Cuts a prompt that is too long to what fits, with a warning, instead of refusing it. */
  truncates?: boolean;
};

/**
 * Checks a request, fills in what it leaves open and tokenises its prompts: the one judgement of a request, wherever it
 * comes from. What comes out is computed as it is.
 * Errors: `request.*`, `reference.*`.
 */
export function judgeRequest(
  request: GenerateRequest,
  { bounds, tokenizer }: Judge,
  { truncates = false }: JudgeOptions = {},
): JudgedRequest {
  const references = checkReferences(request.references, bounds);
  const { prompt, negativePrompt = "", seed = randomSeed(), numImages = 1, partialImages = 0, walk } = request;
  const { width, height, steps, guidance } = filledPicture({ ...request, references }, bounds);
  checkSeed(seed);
  checkInteger("request.num_images_invalid", "images", numImages, maxNumImages);
  if (walk) checkWalk(request, walk);
  checkInteger("request.partial_images_invalid", "partial images", partialImages, maxPartialImages, 0);
  for (const [name, text] of Object.entries({ prompt, "negative prompt": negativePrompt })) {
    if (typeof text === "string") continue;
    throw new DaybreakError("request.prompt_invalid", `got a ${name} of type ${typeof text}, expected a string`);
  }
  const latents = request.latents && checkLatents(request.latents, numImages, { width, height }, bounds);
  const tokenized = truncates ? tokenizer.truncate(prompt) : { ...tokenizer.encode(prompt), total: 0 };
  const warnings: string[] = [];
  if (tokenized.total > tokenized.length) warnings.push(`the prompt was cut to its first ${tokenized.length} tokens`);
  const isGuided = isGuidedBy(guidance, bounds);
  if (!isGuided && ((request.guidance ?? 1) > 1 || negativePrompt !== "")) {
    const why = bounds.isDistilled ? "this checkpoint is distilled" : `guidance is ${guidance}, not above 1`;
    warnings.push(`guidance and negative prompt are ignored: ${why}`);
  }
  const { text, ids, length } = tokenized;
  return {
    ...{ width, height, steps, seed, guidance, references, latents, warnings },
    prompt: { text, ids, length },
    negativePrompt: isGuided ? inField("negativePrompt", () => tokenizer.encode(negativePrompt)) : undefined,
    numImages: walk?.frames ?? numImages,
    firstImage: 0,
    isWalk: walk !== undefined,
    // After the last step there is nothing to guess.
    partialImages: Math.min(partialImages, steps - 1),
  };
}

/** Says of errors which member of the request holds the text that is wrong. */
function inField<T>(field: keyof GenerateRequest, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof DaybreakError)) throw error;
    throw new DaybreakError(error.code, error.message, { cause: error.cause, field });
  }
}

const hookNames: NamesOf<GenerateHooks> = {
  ...{ signal: true, onProgress: true, onImage: true, onFrame: true, onPartialImage: true, trace: true },
};
const requestNames: NamesOf<GenerateRequest> = {
  ...{ prompt: true, negativePrompt: true, width: true, height: true, steps: true, seed: true, guidance: true },
  ...{ numImages: true, walk: true, references: true, latents: true, partialImages: true },
  ...hookNames,
};
const { walk: _asFrames, ...namesInBoth } = requestNames;
const judgedNames: NamesOf<JudgedRequest & GenerateHooks> = {
  ...namesInBoth,
  ...{ firstImage: true, isWalk: true, warnings: true },
};

/** Checks that a request, judged or not, is an object and has nothing but what it may have. Errors: `request.option_invalid`. */
export function checkRequestNames(request: GenerateRequest | JudgedRequest): void {
  const isObject = typeof request === "object" && request !== null;
  checkNames("generate", request, isObject && isJudged(request) ? judgedNames : requestNames);
}

/** Whether a request was judged already, perhaps in another process. */
export function isJudged(request: GenerateRequest | JudgedRequest): request is JudgedRequest {
  return typeof request.prompt === "object" && request.prompt !== null;
}

/**
 * Checks what was judged before it came here, from another process or a caller's hands: that it fits the model and that
 * no part of it can harm. Tokenises nothing and fills in nothing.
 * Errors: as {@link judgeRequest}.
 */
export function recheckRequest(judged: JudgedRequest, { bounds, tokenizer }: Judge): void {
  const { prompt, negativePrompt, seed, numImages, firstImage, isWalk, partialImages, latents, width, height } = judged;
  checkReferences(judged.references, bounds);
  filledPicture(judged, bounds);
  checkSeed(seed);
  checkInteger("request.num_images_invalid", "images", numImages, isWalk ? maxWalkFrames : maxNumImages);
  checkInteger("request.num_images_invalid", "as the first image", firstImage, numImages - 1, 0);
  checkInteger("request.partial_images_invalid", "partial images", partialImages, maxPartialImages, 0);
  for (const tokens of [prompt, ...(negativePrompt ? [negativePrompt] : [])]) checkTokens(tokens, bounds, tokenizer);
  if (latents) {
    const shape = [1, ...bounds.latentShape({ width, height })];
    checkLatents({ shape, data: latents }, numImages, { width, height }, bounds);
  }
}

function checkTokens({ ids, length }: TokenizedPrompt, { promptTokens }: RequestBounds, { maxId }: Tokenizer): void {
  const fits = ids instanceof Int32Array && ids.length === promptTokens && length >= 0 && length <= promptTokens;
  if (fits && ids.every((id) => id >= 0 && id <= maxId)) return;
  throw new DaybreakError(
    "request.prompt_invalid",
    `got a prompt of ${length} tokens in ${ids?.length} ids, expected ${promptTokens} ids from 0 to ${maxId}: have it judged for this model`,
  );
}

/** What decides the plan of a judged request. */
export function shapeOf(judged: JudgedRequest, { references: { preparedSize } }: RequestBounds): PictureShape {
  const { width, height, references, negativePrompt } = judged;
  return { width, height, references: references.map(preparedSize), isGuided: negativePrompt !== undefined };
}

/**
 * What decides the plan of a picture that is only expected, with its steps.
 * Errors: `request.*`, `reference.*`.
 */
export function expectedShape(
  { references = [], ...asked }: ExpectedPicture,
  bounds: RequestBounds,
): { shape: PictureShape; steps: number } {
  for (const size of references) checkReferenceSize(bounds.references.limits, size);
  const { width, height, steps, guidance } = filledPicture({ ...asked, references }, bounds);
  const prepared = references.map(bounds.references.preparedSize);
  return { shape: { width, height, references: prepared, isGuided: isGuidedBy(guidance, bounds) }, steps };
}

function isGuidedBy(guidance: number, { isDistilled }: RequestBounds): boolean {
  return guidance > 1 && !isDistilled;
}

/** Size, steps and guidance with their defaults, checked. */
function filledPicture({ references = [], ...asked }: ExpectedPicture, bounds: RequestBounds) {
  const { sizeMultiple, defaults } = bounds;
  const first = references[0] && bounds.references.preparedSize(references[0]);
  const floor = (side: number) => Math.floor(side / sizeMultiple) * sizeMultiple;
  const width = asked.width ?? floor(first?.width ?? defaults.width);
  const height = asked.height ?? floor(first?.height ?? defaults.height);
  const { steps = defaults.steps, guidance = defaults.guidance } = asked;
  checkSize({ width, height }, sizeMultiple);
  checkInteger("request.steps_invalid", "steps", steps, maxSteps);
  if (!(Number.isFinite(guidance) && guidance >= 0 && guidance <= 1000)) {
    throw new DaybreakError("request.guidance_invalid", `got guidance ${guidance}, expected a number from 0 to 1000`);
  }
  return { width, height, steps, guidance };
}

function checkSize({ width, height }: Size, sizeMultiple: number): void {
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

function checkReferences(references: RgbImage[] = [], bounds: RequestBounds): RgbImage[] {
  if (!Array.isArray(references)) {
    throw new DaybreakError("reference.not_an_image", `got references of type ${typeof references}, expected an array`);
  }
  for (const image of references) checkReference(bounds.references.limits, image);
  if (references.length > maxReferences) {
    const got = references.length;
    throw new DaybreakError("reference.too_many", `got ${got} references, expected at most ${maxReferences}`);
  }
  return references;
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
  { shape, data }: NonNullable<GenerateRequest["latents"]>,
  numImages: number,
  size: Size,
  bounds: RequestBounds,
): Float32Array {
  if (numImages !== 1) {
    throw new DaybreakError("request.latents_invalid", `got latents for ${numImages} images, they go with one image`);
  }
  if (!Array.isArray(shape) || !(data instanceof Float32Array)) {
    const got = `shape ${typeof shape} and data ${(data as unknown)?.constructor?.name ?? typeof data}`;
    throw new DaybreakError(
      "request.latents_invalid",
      `got latents with ${got}, expected an array of extents and a Float32Array`,
    );
  }
  const expected = [1, ...bounds.latentShape(size)];
  const count = expected.reduce((product, n) => product * n, 1);
  const fits = shape.length === expected.length && shape.every((n, i) => n === expected[i]);
  if (!fits || data.length !== count) {
    throw new DaybreakError(
      "request.latents_invalid",
      `got latents [${shape}] of ${data.length} values, expected [${expected}] for ${size.width}×${size.height} pixels`,
    );
  }
  if (!data.every(Number.isFinite)) {
    throw new DaybreakError("request.latents_invalid", "the latents hold values that are NaN or infinite");
  }
  return data;
}
