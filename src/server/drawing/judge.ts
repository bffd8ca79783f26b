// Judges what a request wants drawn, once for all that comes after: everything that can be refused is refused here,
// before a job exists, and nothing is left open. Every API comes through here. Knows no bodies, no events.

import { type JudgedRequest, judgeRequest, type Size } from "../../engine/request.js";
import { imageSeed, randomSafeSeed } from "../../engine/sampling/noise.js";
import { DaybreakError } from "../../errors.js";
import type { ImageFormat } from "../../media/encode.js";
import { ApiError } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
import { isShapeIgnored, shapedSize } from "./aspect-ratio.js";
import type { DrawingContext } from "./context.js";
import { toApiError } from "./errors.js";
import { maxDistilledSteps, maxServedSide, minServedSide } from "./limits.js";
import { guardPrompts } from "./prompt.js";
import { type ReferenceFile, readReferences } from "./reference-files.js";
import type { ImageSource } from "./references.js";

export type Video = { type: "video"; frames: number; framesPerSecond: number };

/** What is to be drawn, as a request says it; undefined and null: the model's default. */
export type DrawingRequest = {
  prompt: string;
  truncation: "auto" | "disabled";
  negativePrompt?: string | null;
  width?: number | null;
  height?: number | null;
  /** Both sides as a text such as 512x768, used where `width` and `height` are open; "auto" leaves them so. */
  size?: string | null;
  /** The shape as a text such as 16:9, used where the size is open; "auto" leaves it so. */
  aspectRatio?: string | null;
  steps?: number | null;
  guidance?: number | null;
  /** −1: one drawn at random, as if there were none. */
  seed?: number | null;
  numImages: number;
  partialImages: number;
  /** The images to start from. */
  images: readonly ImageSource[];
  output: { type: "image"; format: ImageFormat; quality: number } | Video;
  /** What of the request's body means nothing here; the answer says so. */
  warnings: readonly string[];
  /** The path of an option in the request's body, for errors. */
  param: (option: DrawingOption) => string;
};

type DrawingOption = "prompt" | "negative_prompt" | "width" | "size" | "aspect_ratio" | "steps" | "seed";

/** What the served model will draw. */
export type Drawing = {
  /** As the engine takes it, but for its references: they are decoded when it is its turn. */
  request: JudgedRequest;
  references: ReferenceFile[];
  output: DrawingRequest["output"];
  /** Latent tokens of the references, and of all pictures or frames. */
  referenceTokens: number;
  outputTokens: number;
  /** Of each picture; a video has one. */
  seeds: number[];
  /** The member of the request that says the size, for errors. */
  sizeParam: string;
};

/**
 * Reads a request's references, which are judged by their headers, and judges all of it against the served model, once.
 * Throws ApiError: `invalid_request`, and what references are refused with.
 */
export async function judgeDrawing(context: DrawingContext, asked: DrawingRequest, caller: Caller): Promise<Drawing> {
  const { bounds } = context.model;
  const references = await readReferences(context, asked.images, caller);
  const size = chooseSize(context, asked, references[0]?.size);
  const prompt = guardPrompts(context.model, asked);
  checkSteps(context, asked);
  checkSeeds(asked);
  const judged = judge(context, { ...asked, ...size, prompt });
  const request = prompt === asked.prompt ? judged : withCutTold(judged, prompt);
  const ignored = [...asked.warnings, ...(isShapeIgnored(asked) ? ["aspect_ratio is ignored: the size is given"] : [])];
  return {
    request: { ...request, warnings: [...ignored, ...request.warnings] },
    references,
    output: asked.output,
    referenceTokens: references.reduce((sum, { size }) => sum + bounds.latentTokens(size), 0),
    outputTokens: bounds.latentTokens(request) * request.numImages,
    seeds: Array.from({ length: asked.numImages }, (_, i) => Number(imageSeed(request.seed, i))),
    sizeParam: asked.param("width"),
  };
}

/** The request whose prompt was cut to so many characters, with a warning that says so, unless its judgement did. */
function withCutTold(request: JudgedRequest, cut: string): JudgedRequest {
  const { prompt, warnings } = request;
  if (prompt.text !== cut) return request;
  return { ...request, warnings: [`the prompt was cut to its first ${prompt.length} tokens`, ...warnings] };
}

/** What the request says, else the first reference's size, else the server's. Throws ApiError `request_size_invalid`. */
function chooseSize(
  { options, model }: DrawingContext,
  { width, height, size, aspectRatio, param }: DrawingRequest,
  first: Size | undefined,
): Size {
  const { sizeMultiple } = model.bounds;
  const asked = size && size !== "auto" ? parseSize(size, sizeMultiple, param("size")) : undefined;
  const open = asked ?? (first ? boundedSize(first, sizeMultiple) : options.defaultSize);
  if (aspectRatio && !asked) {
    return shapedSize({ width, height, aspectRatio, open }, sizeMultiple, param("aspect_ratio"));
  }
  return { width: width ?? open.width, height: height ?? open.height };
}

/** A size such as 512x768, within the bounds that `width` and `height` have. Throws ApiError. */
function parseSize(text: string, sizeMultiple: number, param: string): Size {
  const [width = 0, height = 0] = /^(\d{1,5})x(\d{1,5})$/.exec(text)?.slice(1).map(Number) ?? [];
  if ([width, height].every((side) => side >= minServedSide && side <= maxServedSide && side % sizeMultiple === 0)) {
    return { width, height };
  }
  const expected = `WIDTHxHEIGHT in multiples of ${sizeMultiple} from ${minServedSide} to ${maxServedSide}, or auto`;
  const message = `got the size ${JSON.stringify(text.slice(0, 40))}, expected ${expected}`;
  throw new ApiError("invalid_request", "request_size_invalid", message, { param });
}

/** A reference's size, brought into the bounds of outputs without changing its shape more than it must. */
function boundedSize({ width, height }: Size, sizeMultiple: number): Size {
  const scale = Math.max(1, minServedSide / Math.min(width, height));
  const bound = (side: number) =>
    Math.min(maxServedSide, Math.max(minServedSide, Math.round((side * scale) / sizeMultiple) * sizeMultiple));
  return { width: bound(width), height: bound(height) };
}

function checkSteps({ model }: DrawingContext, { steps, param }: DrawingRequest): void {
  if (!model.bounds.isDistilled || !steps || steps <= maxDistilledSteps) return;
  const message = `got ${steps} steps, this distilled model takes 1 to ${maxDistilledSteps}`;
  throw new ApiError("invalid_request", "request_steps_invalid", message, { param: param("steps") });
}

/** Refuses a seed whose followers an answer could not name: a number there is exact up to 2⁵³ − 1. */
function checkSeeds({ seed, numImages, param }: DrawingRequest): void {
  const most = Number.MAX_SAFE_INTEGER - (numImages - 1);
  if (!seed || seed <= most) return;
  const message = `got the seed ${seed} for ${numImages} images, the last of which would have one above ${Number.MAX_SAFE_INTEGER}: expected at most ${most}`;
  throw new ApiError("invalid_request", "request_seed_invalid", message, { param: param("seed") });
}

/** The engine's own judgement, its errors in the words of the API. */
function judge({ model }: DrawingContext, asked: DrawingRequest & Size): JudgedRequest {
  const { prompt, width, height, numImages, partialImages, output, param } = asked;
  const request = {
    ...{ prompt, width, height, numImages, partialImages },
    negativePrompt: asked.negativePrompt ?? undefined,
    steps: asked.steps ?? undefined,
    guidance: asked.guidance ?? undefined,
    seed: asked.seed === -1 ? randomSafeSeed(numImages) : BigInt(asked.seed ?? randomSafeSeed(numImages)),
    walk: output.type === "video" ? { frames: output.frames } : undefined,
  };
  try {
    return judgeRequest(request, model, { truncates: asked.truncation === "auto" });
  } catch (error) {
    const { type, code, message, param: member } = toApiError(error, param("width"));
    const isPrompt = error instanceof DaybreakError && error.code.startsWith("request.prompt_");
    const holder = isPrompt ? param(error.field === "negativePrompt" ? "negative_prompt" : "prompt") : member;
    throw new ApiError(type, code, message, { param: holder, cause: error });
  }
}
