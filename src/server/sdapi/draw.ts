// From a body of AUTOMATIC1111's API to its answer: the same drawings as those of the other APIs, all pictures at once,
// in PNG and base64. What that program can do and this model cannot is told in the answer's warnings.

import type { DrawingContext } from "../drawing/context.js";
import { logPrompt, pictureTexts, submitDrawing } from "../drawing/draw.js";
import { unsupportedMask } from "../drawing/errors.js";
import { type Drawing, type DrawingRequest, judgeDrawing } from "../drawing/judge.js";
import { maxDistilledSteps, maxServedImages, maxServedSide, maxServedSteps, minServedSide } from "../drawing/limits.js";
import { checkModel } from "../drawing/model-name.js";
import type { ImageSource } from "../drawing/references.js";
import { unknownWarnings } from "../drawing/unknown-options.js";
import { json, toBase64 } from "../http/answers.js";
import { ApiError } from "../http/api-error.js";
import type { HeldBytes } from "../http/body.js";
import type { Caller } from "../http/caller.js";
import type { IdempotencyKeys } from "../http/idempotency.js";
import type { HttpResponse } from "../http/messages.js";
import type { DrawingProgress, Watched } from "./progress.js";
import type { Img2imgBody, SdImages, Txt2imgBody } from "./schema.js";

export type SdapiContext = DrawingContext & { heldBytes: HeldBytes; idempotency: IdempotencyKeys };

/** The only one that these models were made for. */
export const samplerName = "Euler";

/** What these clients call the options that others call otherwise. */
const places = {
  ...{ width: "width", height: "height", steps: "steps", seed: "seed", negative_prompt: "negative_prompt" },
  ...{ guidance_scale: "cfg_scale", n: "batch_size" },
};

/**
 * Draws what a body asks for. Throws ApiError for everything that is wrong with it, and when the queue is full.
 * @param unknown paths of the body's members that nobody reads
 */
export async function draw(
  context: SdapiContext,
  progress: DrawingProgress,
  caller: Caller,
  { body, unknown }: { body: Txt2imgBody | Img2imgBody; unknown: readonly string[] },
): Promise<HttpResponse> {
  checkModel(context.options, body.override_settings?.sd_model_checkpoint);
  if (body.mask) throw unsupportedMask("mask");
  context.jobs.checkRoom(caller.key);
  const drawing = await judgeDrawing(context, drawingRequest(context, body, unknown), caller);
  logPrompt(context, caller, drawing.request.prompt.text);
  const images = new Array<string>(drawing.request.numImages);
  const job = "init_images" in body ? "scripts_img2img" : "scripts_txt2img";
  const watched: Watched = { owner: caller.key, job, began: new Date(), images: images.length };
  const { result } = submitDrawing(context, drawing, {
    caller: caller.key,
    signal: caller.signal,
    onStep: (at) => {
      watched.at = at;
    },
    onImage: async ({ bytes }, i) => {
      images[i] = toBase64(bytes);
    },
  });
  await progress.during(watched, result);
  return json(answer(context, drawing, body.send_images === false ? [] : images));
}

function drawingRequest(
  { model: { bounds } }: SdapiContext,
  body: Txt2imgBody | Img2imgBody,
  unknown: readonly string[],
): DrawingRequest {
  const numImages = (body.batch_size ?? 1) * (body.n_iter ?? 1);
  if (numImages > maxServedImages) {
    const message = `got ${numImages} images by batch_size and n_iter, expected at most ${maxServedImages}`;
    throw new ApiError("invalid_request", "invalid_value", message, { param: "batch_size" });
  }
  const fitted = fitToModel(body, bounds);
  return {
    prompt: body.prompt,
    truncation: "disabled",
    negativePrompt: body.negative_prompt,
    ...{ width: fitted.width, height: fitted.height, steps: fitted.steps },
    guidance: body.cfg_scale,
    seed: body.seed,
    numImages,
    partialImages: 0,
    images: "init_images" in body ? body.init_images.map(imageSource) : [],
    output: { type: "image", format: "png", quality: 100 },
    warnings: [...unknownWarnings(unknown, places), ...fitted.warnings, ...ignoredWarnings(body)],
    param: (option) => option,
  };
}

function imageSource(image: string, i: number): ImageSource {
  const param = `init_images[${i}]`;
  return /^data:/i.test(image) ? { from: "url", url: image, param } : { from: "base64", data: image, param };
}

type Fitted = { width?: number; height?: number; steps?: number; warnings: string[] };

/**
 * Steps and sides as the model takes them. These clients have one setting of each for whatever they are connected to:
 * twenty steps, sides in multiples of 8.
 */
function fitToModel(
  body: Txt2imgBody,
  { isDistilled, sizeMultiple, defaults }: SdapiContext["model"]["bounds"],
): Fitted {
  const warnings: string[] = [];
  const side = (name: "width" | "height") => {
    const asked = body[name];
    if (!asked) return undefined;
    const rounded = Math.round(asked / sizeMultiple) * sizeMultiple;
    const fitted = Math.min(maxServedSide, Math.max(minServedSide, rounded));
    if (fitted !== asked) warnings.push(`the ${name} is ${fitted} instead of ${asked}`);
    return fitted;
  };
  const [width, height] = [side("width"), side("height")];
  const mostSteps = isDistilled ? maxDistilledSteps : maxServedSteps;
  let steps = body.steps ?? undefined;
  if (steps !== undefined && steps > mostSteps) {
    warnings.push(`${defaults.steps} steps were made instead of ${steps}: this model takes at most ${mostSteps}`);
    steps = defaults.steps;
  }
  return { width, height, steps, warnings };
}

/** What is known here and yet changes nothing. */
function ignoredWarnings(body: Txt2imgBody | Img2imgBody): string[] {
  const sampler = body.sampler_name || body.sampler_index || samplerName;
  const scheduler = body.scheduler || "automatic";
  return [
    ...(sampler.toLowerCase() === samplerName.toLowerCase()
      ? []
      : [`the sampler is ${samplerName}, whatever is asked for`]),
    ...(scheduler.toLowerCase() === "automatic" ? [] : ["the scheduler is the model's own, whatever is asked for"]),
    ...("init_images" in body && body.denoising_strength
      ? ["denoising_strength is ignored: the images are references, which the prompt says what to do with"]
      : []),
  ];
}

function answer(context: SdapiContext, drawing: Drawing, images: string[]): SdImages {
  const { request, seeds } = drawing;
  const { prompt, negativePrompt, width, height, steps, warnings } = request;
  const [seed = 0] = seeds;
  const parameters = {
    prompt: prompt.text,
    negative_prompt: negativePrompt?.text ?? "",
    ...{ width, height, steps, seed },
    cfg_scale: negativePrompt ? request.guidance : 1,
    batch_size: seeds.length,
    n_iter: 1 as const,
    sampler_name: samplerName,
  };
  const info = {
    ...parameters,
    all_prompts: seeds.map(() => parameters.prompt),
    all_negative_prompts: seeds.map(() => parameters.negative_prompt),
    all_seeds: seeds,
    infotexts: seeds.map((one) => pictureTexts(context, drawing, BigInt(one)).parameters),
    index_of_first_image: 0,
    sd_model_name: context.options.modelName,
    version: context.options.version,
  };
  return { images, parameters, info: JSON.stringify(info), ...(warnings.length > 0 && { warnings }) };
}
