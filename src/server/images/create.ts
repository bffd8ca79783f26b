// From the body of OpenAI's images routes to its answer: all pictures at once, or a stream with partial images. The same
// drawings as those of `/v1/responses`, in OpenAI's words. Answers b64_json by default, because both official clients
// read that.

import type { DrawingContext } from "../drawing/context.js";
import { logPrompt, submitDrawing } from "../drawing/draw.js";
import { toApiError, unsupportedBackground } from "../drawing/errors.js";
import { assetUrl, type ImageFile, imageFacts } from "../drawing/files.js";
import { type Drawing, type DrawingRequest, judgeDrawing } from "../drawing/judge.js";
import { checkModel } from "../drawing/model-name.js";
import type { ImageSource } from "../drawing/references.js";
import { unknownWarnings } from "../drawing/unknown-options.js";
import { json, toBase64, unixSeconds } from "../http/answers.js";
import { errorPayload } from "../http/api-error.js";
import type { HeldBytes, KeepHeld } from "../http/body.js";
import type { Caller } from "../http/caller.js";
import { EventLog } from "../http/event-log.js";
import type { IdempotencyKeys } from "../http/idempotency.js";
import type { HttpResponse } from "../http/messages.js";
import { eventStream } from "../http/sse.js";
import {
  type ImageEditBody,
  type ImageEditForm,
  type ImageGenerationBody,
  type ImagesResponse,
  type ImagesStreamEvent,
  imageGenerationBody,
} from "./schema.js";

export type ImagesContext = DrawingContext & { heldBytes: HeldBytes; idempotency: IdempotencyKeys };
type Body = ImageGenerationBody | ImageEditBody | ImageEditForm;

/**
 * Draws what a body asks for. Throws ApiError for everything that is wrong with it, and when the queue is full.
 * @param unknown paths of the body's members that nobody reads
 * @param keepHeld what the body takes in memory is held until a stream is over
 */
export async function create(
  context: ImagesContext,
  caller: Caller,
  { body, unknown }: { body: Body; unknown: readonly string[] },
  keepHeld: KeepHeld,
): Promise<HttpResponse> {
  checkModel(context.options, body.model);
  if (body.background === "transparent") throw unsupportedBackground("background");
  context.jobs.checkRoom(caller.key);
  const drawing = await judgeDrawing(context, drawingRequest(body, unknown), caller);
  logPrompt(context, caller, drawing.request.prompt.text);
  const kind = "images" in body ? "image_edit" : "image_generation";
  if (body.stream) return stream(context, caller, kind, drawing, keepHeld);
  return whole(context, caller, body.response_format === "url", drawing);
}

/** These routes have all their options on the top level. */
const places = Object.fromEntries(Object.keys(imageGenerationBody.shape).map((option) => [option, option]));

function drawingRequest(body: Body, unknown: readonly string[]): DrawingRequest {
  const given = "images" in body ? body.images : [];
  return {
    prompt: body.prompt,
    truncation: "disabled",
    negativePrompt: body.negative_prompt,
    width: body.width,
    height: body.height,
    size: body.size,
    aspectRatio: body.aspect_ratio,
    steps: body.steps,
    guidance: body.guidance_scale,
    seed: body.seed,
    numImages: body.n ?? 1,
    partialImages: body.stream ? (body.partial_images ?? 0) : 0,
    images: given.map((image, i): ImageSource => {
      if ("file" in image) return { from: "file", bytes: image.file, param: `images[${i}]` };
      return { from: "url", url: image.image_url, param: `images[${i}].image_url` };
    }),
    output: { type: "image", format: body.output_format ?? "png", quality: body.output_compression ?? 90 },
    warnings: unknownWarnings(unknown, places),
    param: (option) => (option === "width" && !body.width && !body.height ? "size" : option),
  };
}

/** All pictures in one answer; if one fails, none of them is kept. */
async function whole(
  context: ImagesContext,
  caller: Caller,
  isStored: boolean,
  drawing: Drawing,
): Promise<HttpResponse> {
  const data = new Array<ImagesResponse["data"][number]>(drawing.request.numImages);
  const kept: string[] = [];
  try {
    const { result } = submitDrawing(context, drawing, {
      caller: caller.key,
      signal: caller.signal,
      onImage: async (file, i) => {
        if (!isStored) {
          data[i] = { b64_json: toBase64(file.bytes), seed: file.seed };
          return;
        }
        const asset = await context.store.put(
          "img",
          file.bytes,
          imageFacts(file, drawing.request.prompt.text, caller.key),
        );
        kept.push(asset.id);
        data[i] = { url: assetUrl(caller.baseUrl, asset), seed: file.seed };
      },
    });
    await result;
  } catch (error) {
    // What cannot be removed now goes with its time to live; the failure to report is the one that came before.
    for (const id of kept) await context.store.delete(id).catch(() => false);
    throw error;
  }
  return json({
    created: unixSeconds(),
    data,
    ...description(drawing),
    usage: imagesUsage(drawing),
    ...warnings(drawing),
  } satisfies ImagesResponse);
}

/** Events as they come; the client's going away ends the job. */
function stream(
  context: ImagesContext,
  caller: Caller,
  kind: "image_generation" | "image_edit",
  drawing: Drawing,
  keepHeld: KeepHeld,
): HttpResponse {
  const events = new EventLog<ImagesStreamEvent | StreamError>();
  const base = (file: ImageFile) => ({
    b64_json: toBase64(file.bytes),
    created_at: unixSeconds(),
    ...description(drawing),
  });
  const { result } = submitDrawing(context, drawing, {
    caller: caller.key,
    signal: caller.signal,
    onPartial: (file, { index }) =>
      events.add({ type: `${kind}.partial_image`, partial_image_index: index, ...base(file) }),
    onImage: async (file) =>
      events.add({ type: `${kind}.completed`, ...base(file), usage: imagesUsage(drawing), ...warnings(drawing) }),
  });
  keepHeld(
    result
      .catch((error) => events.add({ type: "error", error: errorPayload(toApiError(error)) }))
      .finally(() => events.end()),
  );
  return eventStream(events.follow(-1, caller.signal));
}

type StreamError = { type: "error"; error: ReturnType<typeof errorPayload> };

function description({ request: { width, height }, output }: Drawing) {
  const output_format = output.type === "image" ? output.format : "png";
  return { background: "opaque", output_format, size: `${width}x${height}`, quality: "high" } as const;
}

function warnings({ request }: Drawing): { warnings?: string[] } {
  return request.warnings.length > 0 ? { warnings: request.warnings } : {};
}

/** Latent tokens of the references and of the pictures count as image tokens. */
function imagesUsage({ request, referenceTokens: image_tokens, outputTokens: output_tokens }: Drawing) {
  const text_tokens = request.prompt.length;
  const input_tokens = text_tokens + image_tokens;
  return {
    total_tokens: input_tokens + output_tokens,
    input_tokens,
    output_tokens,
    input_tokens_details: { text_tokens, image_tokens },
  };
}
