// Judges what a request wants drawn, once for all that comes after: everything that can be refused is refused here,
// before a job exists, and nothing is left open. Every API comes through here. Knows no bodies, no events.

import { type JudgedRequest, judgeRequest, type Size } from "../../engine/request.js";
import { imageSeed } from "../../engine/sampling/noise.js";
import { DaybreakError } from "../../errors.js";
import type { ImageFormat } from "../../media/encode.js";
import { ApiError } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
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
  const request = judge(context, { ...asked, ...size, prompt });
  return {
    request: prompt === asked.prompt ? request : withCutTold(request, prompt),
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
  { width, height, size, param }: DrawingRequest,
  first: Size | undefined,
): Size {
  const { sizeMultiple } = model.bounds;
  const asked = size && size !== "auto" ? parseSize(size, sizeMultiple, param("size")) : undefined;
  const open = asked ?? (first ? boundedSize(first, sizeMultiple) : options.defaultSize);
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

/** The engine's own judgement, its errors in the words of the API. */
function judge({ model }: DrawingContext, asked: DrawingRequest & Size): JudgedRequest {
  const { prompt, width, height, numImages, partialImages, output, param } = asked;
  const request = {
    ...{ prompt, width, height, numImages, partialImages },
    negativePrompt: asked.negativePrompt ?? undefined,
    steps: asked.steps ?? undefined,
    guidance: asked.guidance ?? undefined,
    seed: BigInt(asked.seed ?? randomSafeSeed()),
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

/** A seed that every JSON reader can hold. */
function randomSafeSeed(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return (high & 0x1fffff) * 2 ** 32 + low;
}
