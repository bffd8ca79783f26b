// OpenAI's images routes: `POST /v1/images/generations` and `/v1/images/edits`, in JSON or as a form, with streams of
// partial images. The same drawings as those of `/v1/responses`, in OpenAI's words. They answer b64_json by default,
// because both official clients read that.

import type { RgbImage } from "../../engine/request.js";
import type { Caller, ServerContext } from "../context.js";
import { type Drawing, type ImageFile, imageFacts, logPrompt, planDrawing, submitDrawing } from "../drawing/draw.js";
import { checkModel } from "../drawing/models.js";
import { assetUrl, readReferences } from "../drawing/references.js";
import { ApiError, errorPayload, schemaError, toApiError } from "../http/api-error.js";
import { type KeepHeld, mediaType, unsupportedType, withForm, withJson } from "../http/body.js";
import { EventLog } from "../http/event-log.js";
import type { HttpResponse } from "../http/messages.js";
import { sseHeaders, sseText } from "../http/sse.js";
import type { ImageSource } from "../responses/conversation.js";
import { toBase64 } from "../responses/output.js";
import { parseSize, seconds } from "../responses/request.js";
import { maxReferences } from "../responses/request-schema.js";
import { type Call, json, type Route } from "../routing.js";
import {
  type ImageEditBody,
  type ImageGenerationBody,
  type ImagesResponse,
  type ImagesStreamEvent,
  imageEditBody,
  imageGenerationBody,
  imagesResponse,
  imagesStreamEvent,
} from "./schema.js";

const answer = { "application/json": imagesResponse, "text/event-stream": imagesStreamEvent };

export function imageRoutes(context: ServerContext): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/images/generations",
      access: "key",
      summary: "OpenAI's image generation",
      handle: ({ request, caller }) =>
        withJson(request, async (body, keepHeld) => {
          const parsed = imageGenerationBody.safeParse(body);
          if (!parsed.success) throw schemaError(parsed.error, body);
          return draw(context, caller, { kind: "image_generation", body: parsed.data, sources: [] }, keepHeld);
        }),
      body: { "application/json": imageGenerationBody },
      answer,
    },
    {
      method: "POST",
      path: "/v1/images/edits",
      access: "key",
      summary: "OpenAI's image edit, of up to 8 images",
      handle: (call) => edit(context, call),
      body: { "application/json": imageEditBody, "multipart/form-data": "form" },
      answer,
    },
  ];
}

async function edit(context: ServerContext, { request, caller }: Call): Promise<HttpResponse> {
  const type = mediaType(request);
  const use = (body: unknown, keepHeld: KeepHeld) => editImages(context, caller, body, keepHeld);
  if (type === "application/json") return withJson(request, use);
  if (type !== "multipart/form-data") throw unsupportedType(request, "multipart/form-data or application/json");
  return withForm(request, async (form, keepHeld) => use(await formBody(form), keepHeld));
}

async function editImages(
  context: ServerContext,
  caller: Caller,
  body: unknown,
  keepHeld: KeepHeld,
): Promise<HttpResponse> {
  const parsed = imageEditBody.safeParse(body);
  if (!parsed.success) throw schemaError(parsed.error, body);
  const { images, mask } = parsed.data;
  if (mask !== undefined && mask !== null) {
    const message = "got a mask, which this model cannot use: say in the prompt what to change";
    throw new ApiError("invalid_request", "unsupported_mask", message, { param: "mask" });
  }
  if (images.length > maxReferences) {
    const message = `got ${images.length} images, this model takes at most ${maxReferences}`;
    throw new ApiError("invalid_request", "too_many_images", message, { param: "images" });
  }
  const sources = images.map(
    ({ image_url }, i): ImageSource => ({ from: "url", url: image_url, param: `images[${i}].image_url` }),
  );
  return draw(context, caller, { kind: "image_edit", body: parsed.data, sources }, keepHeld);
}

/** A form as the JSON body that says the same: files become data: URIs, `image` and `image[]` become `images`. */
async function formBody(form: FormData): Promise<Record<string, unknown>> {
  const body: Record<string, unknown> = {};
  const images: { image_url: string }[] = [];
  for (const [name, value] of form) {
    const isImage = /^image(\[\d*\])?$/.test(name);
    if (typeof value === "string") {
      if (isImage)
        throw new ApiError("invalid_request", "invalid_form", "got an image as text, expected a file", { param: name });
      body[name] = value;
    } else if (isImage) {
      const base64 = Buffer.from(await value.arrayBuffer()).toString("base64");
      images.push({ image_url: `data:application/octet-stream;base64,${base64}` });
    } else {
      body[name] = "a file";
    }
  }
  return { ...body, images };
}

type Kind = "image_generation" | "image_edit";
type Body = ImageGenerationBody | ImageEditBody;

type Order = { kind: Kind; body: Body; sources: ImageSource[] };

async function draw(
  context: ServerContext,
  caller: Caller,
  { kind, body, sources }: Order,
  keepHeld: KeepHeld,
): Promise<HttpResponse> {
  checkModel(context.options.modelName, body.model);
  if (body.background === "transparent") {
    const message = "got a transparent background, expected opaque or auto: this model draws opaque pictures";
    throw new ApiError("invalid_request", "unsupported_background", message, { param: "background" });
  }
  context.jobs.checkRoom(caller.key);
  const references = await readReferences(context, sources, caller);
  const drawing = plan(context, body, references);
  if (context.options.logPrompts) logPrompt(context, caller, drawing.prompt);
  if (body.stream) return stream(context, caller, { kind, drawing }, keepHeld);
  const data = new Array<ImagesResponse["data"][number]>(drawing.numImages);
  const kept: string[] = [];
  try {
    const { result } = submitDrawing(context, drawing, {
      caller: caller.key,
      signal: caller.signal,
      onImage: async (file, i) => {
        if (body.response_format !== "url") {
          data[i] = { b64_json: toBase64(file.bytes), seed: file.seed };
          return;
        }
        const asset = await context.store.put("img", file.bytes, imageFacts(file, drawing));
        kept.push(asset.id);
        data[i] = { url: assetUrl(caller.baseUrl, asset), seed: file.seed };
      },
    });
    await result;
  } catch (error) {
    for (const id of kept) await context.store.delete(id);
    throw error;
  }
  return json({
    created: seconds(),
    data,
    ...description(drawing),
    usage: imagesUsage(drawing),
  } satisfies ImagesResponse);
}

function plan(context: ServerContext, body: Body, references: RgbImage[]): Drawing {
  const size = body.size && body.size !== "auto" ? parseSize(body.size, "size") : undefined;
  return planDrawing(context, {
    prompt: body.prompt,
    truncation: "disabled",
    ...size,
    seed: body.seed,
    numImages: body.n ?? 1,
    partialImages: body.stream ? (body.partial_images ?? 0) : 0,
    references,
    output: { type: "image", format: body.output_format ?? "png", quality: body.output_compression ?? 90 },
    param: (option) => (option === "width" ? "size" : option),
  });
}

/** Events as they come; the client's going away ends the job. */
function stream(
  context: ServerContext,
  caller: Caller,
  { kind, drawing }: { kind: Kind; drawing: Drawing },
  keepHeld: KeepHeld,
): HttpResponse {
  const events = new EventLog<ImagesStreamEvent | StreamError>();
  const base = (file: ImageFile) => ({
    b64_json: toBase64(file.bytes),
    created_at: seconds(),
    ...description(drawing),
  });
  const { result } = submitDrawing(context, drawing, {
    caller: caller.key,
    signal: caller.signal,
    onPartial: (file, { index }) =>
      events.add({ type: `${kind}.partial_image`, partial_image_index: index, ...base(file) }),
    onImage: async (file) => events.add({ type: `${kind}.completed`, ...base(file), usage: imagesUsage(drawing) }),
  });
  keepHeld(
    result
      .catch((error) => events.add({ type: "error", error: errorPayload(toApiError(error)) }))
      .finally(() => events.end()),
  );
  return { status: 200, headers: { ...sseHeaders }, body: sseText(events.follow(-1, caller.signal)) };
}

type StreamError = { type: "error"; error: ReturnType<typeof errorPayload> };

function description({ width, height, output }: Drawing) {
  const output_format = output.type === "image" ? output.format : "png";
  return { background: "opaque", output_format, size: `${width}x${height}`, quality: "high" } as const;
}

/** Latent tokens of the references and of the pictures count as image tokens. */
function imagesUsage({ promptTokens, referenceTokens: image_tokens, outputTokens: output_tokens }: Drawing) {
  const input_tokens = promptTokens + image_tokens;
  return {
    total_tokens: input_tokens + output_tokens,
    input_tokens,
    output_tokens,
    input_tokens_details: { text_tokens: promptTokens, image_tokens },
  };
}
