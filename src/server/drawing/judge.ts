// Judges what a request wants drawn, once for all that comes after: everything that can be refused is refused here,
// before a job exists, and nothing is left open. Every API comes through here. Knows no bodies, no events.

import { type ResolvedRequest, type RgbImage, resolveRequest, sizeMultiple } from "../../engine/request.js";
import { imageSeed } from "../../engine/rng.js";
import type { ImageFormat } from "../../media/encode.js";
import { ApiError } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
import type { DrawingContext } from "./context.js";
import { toApiError } from "./errors.js";
import { maxDistilledSteps, maxServedSide, minServedSide } from "./limits.js";
import { countTokens, fitPrompt } from "./prompt.js";
import { type ImageSource, readReferences } from "./references.js";

type Size = { width: number; height: number };

export type Video = { type: "video"; frames: number; framesPerSecond: number };

/** What is to be drawn, as a request says it; undefined and null: the model's default. */
export type DrawingRequest = {
  prompt: string;
  truncation: "auto" | "disabled";
  negativePrompt?: string | null;
  width?: number | null;
  height?: number | null;
  /** Both sides in one text such as 512x768, for where `width` and `height` say nothing; "auto" leaves them open. */
  size?: string | null;
  steps?: number | null;
  guidance?: number | null;
  seed?: number | null;
  numImages: number;
  partialImages: number;
  /** The images to start from. */
  images: readonly ImageSource[];
  output: { type: "image"; format: ImageFormat; quality: number } | Video;
  /** The path of an option in the request's body, for errors. */
  param: (option: "prompt" | "negative_prompt" | "width" | "size" | "steps") => string;
};

/** What the served model will draw. */
export type Drawing = ResolvedRequest & {
  /** At most 1024² of area. */
  references: RgbImage[];
  partialImages: number;
  output: DrawingRequest["output"];
  promptTokens: number;
  /** Latent tokens of the references, and of all pictures or frames. */
  referenceTokens: number;
  outputTokens: number;
  /** Of each picture; a video has one. */
  seeds: number[];
  /** The member of the request that says the size, for errors. */
  sizeParam: string;
};

/**
 * Reads a request's references and judges all of it against the served model.
 * Throws ApiError: `invalid_request`, and what references are refused with.
 */
export async function judgeDrawing(context: DrawingContext, request: DrawingRequest, caller: Caller): Promise<Drawing> {
  const { tokenizer, defaults } = context;
  const { numImages, partialImages, output, param } = request;
  const references = await readReferences(context, request.images, caller);
  const size = chooseSize(request, references[0], context.options.defaultSize);
  const { prompt, tokens, warnings } = fitPrompt(tokenizer, request);
  checkSteps(context, request);
  const resolved = resolve(context, { ...request, ...size, prompt }, references);
  const promptTokens = tokens ?? countTokens(tokenizer, prompt, param("prompt"));
  if (resolved.isGuided) countTokens(tokenizer, resolved.negativePrompt, param("negative_prompt"));
  const latentTokens = ({ width, height }: Size) =>
    Math.floor(width / defaults.tokenPixels) * Math.floor(height / defaults.tokenPixels);
  return {
    ...resolved,
    warnings: [...warnings, ...resolved.warnings],
    references,
    partialImages,
    output,
    promptTokens,
    referenceTokens: references.reduce((sum, image) => sum + latentTokens(image), 0),
    outputTokens: latentTokens(resolved) * resolved.numImages,
    seeds: Array.from({ length: numImages }, (_, i) => Number(imageSeed(resolved.seed, i))),
    sizeParam: param("width"),
  };
}

/** What the request says, else the first reference's size, else the server's. Throws ApiError `request_size_invalid`. */
function chooseSize({ width, height, size, param }: DrawingRequest, first: RgbImage | undefined, fallback: Size): Size {
  const asked = size && size !== "auto" ? parseSize(size, param("size")) : undefined;
  const open = asked ?? (first ? boundedSize(first) : fallback);
  return { width: width ?? open.width, height: height ?? open.height };
}

/** A size such as 512x768, within the bounds that `width` and `height` have. Throws ApiError. */
function parseSize(text: string, param: string): Size {
  const [width = 0, height = 0] = /^(\d{1,5})x(\d{1,5})$/.exec(text)?.slice(1).map(Number) ?? [];
  if ([width, height].every((side) => side >= minServedSide && side <= maxServedSide && side % sizeMultiple === 0)) {
    return { width, height };
  }
  const expected = `WIDTHxHEIGHT in multiples of ${sizeMultiple} from ${minServedSide} to ${maxServedSide}, or auto`;
  const message = `got the size ${JSON.stringify(text.slice(0, 40))}, expected ${expected}`;
  throw new ApiError("invalid_request", "request_size_invalid", message, { param });
}

/** A reference's size, brought into the bounds of outputs without changing its shape more than it must. */
function boundedSize({ width, height }: Size): Size {
  const scale = Math.max(1, minServedSide / Math.min(width, height));
  const bound = (side: number) =>
    Math.min(maxServedSide, Math.max(minServedSide, Math.round((side * scale) / sizeMultiple) * sizeMultiple));
  return { width: bound(width), height: bound(height) };
}

function checkSteps({ defaults }: DrawingContext, { steps, param }: DrawingRequest): void {
  if (!defaults.isDistilled || !steps || steps <= maxDistilledSteps) return;
  const message = `got ${steps} steps, this distilled model takes 1 to ${maxDistilledSteps}`;
  throw new ApiError("invalid_request", "request_steps_invalid", message, { param: param("steps") });
}

/** The engine's own judgement, in the words of the API. */
function resolve(
  { defaults }: DrawingContext,
  request: DrawingRequest & Size,
  references: RgbImage[],
): ResolvedRequest {
  const { prompt, width, height, numImages, partialImages, output, param } = request;
  const asked = {
    ...{ prompt, width, height, numImages, partialImages, references },
    negativePrompt: request.negativePrompt ?? undefined,
    steps: request.steps ?? undefined,
    guidance: request.guidance ?? undefined,
    seed: BigInt(request.seed ?? randomSafeSeed()),
    walk: output.type === "video" ? { frames: output.frames } : undefined,
  };
  try {
    return resolveRequest(asked, defaults);
  } catch (error) {
    throw toApiError(error, param("width"));
  }
}

/** A seed that every JSON reader can hold. */
function randomSafeSeed(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return (high & 0x1fffff) * 2 ** 32 + low;
}
