// OpenAI's images routes: `POST /v1/images/generations` and `/v1/images/edits`, in JSON or as a form. Bodies in; what
// comes of them is not known here.

import { unsupportedMask } from "../drawing/errors.js";
import { maxServedReferences } from "../drawing/limits.js";
import { ApiError } from "../http/api-error.js";
import { type KeepHeld, mediaType, unsupportedType } from "../http/body.js";
import { type FormPart, withForm } from "../http/forms.js";
import { takesJson, withJson } from "../http/json.js";
import type { HttpResponse } from "../http/messages.js";
import type { Call, Route } from "../http/routes.js";
import { readAs, unknownMembers } from "../http/schema.js";
import { create, type ImagesContext } from "./create.js";
import {
  type ImageEditBody,
  type ImageEditForm,
  imageEditBody,
  imageEditForm,
  imageGenerationBody,
  imagesResponse,
  imagesStreamEvent,
} from "./schema.js";

const answer = { "application/json": imagesResponse, "text/event-stream": imagesStreamEvent };

export function imageRoutes(context: ImagesContext): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/images/generations",
      access: "key",
      summary: "OpenAI's image generation",
      isIdempotent: true,
      ...takesJson(context.heldBytes, imageGenerationBody, (body, call, keepHeld, unknown) =>
        context.idempotency.once(call, body, (caller) => create(context, caller, { body, unknown }, keepHeld)),
      ),
      answer,
    },
    {
      method: "POST",
      path: "/v1/images/edits",
      access: "key",
      summary: "OpenAI's image edit, of up to 8 images",
      isIdempotent: true,
      handle: (call) => edit(context, call),
      body: { "application/json": imageEditBody, "multipart/form-data": "form" },
      answer,
    },
    {
      method: "POST",
      path: "/v1/images/variations",
      access: "key",
      summary: "OpenAI's image variations, which this server does not offer",
      handle: refuseVariations,
      answer: {},
    },
  ];
}

function refuseVariations(): never {
  const message = "variations are not offered here: send the picture to /v1/images/edits, with a prompt";
  throw new ApiError("invalid_request", "variations_not_offered", message);
}

async function edit(context: ImagesContext, call: Call): Promise<HttpResponse> {
  const { request } = call;
  const type = mediaType(request);
  const use = async (body: ImageEditBody | ImageEditForm, keepHeld: KeepHeld, unknown: string[]) => {
    checkEdit(body);
    return context.idempotency.once(call, body, (caller) => create(context, caller, { body, unknown }, keepHeld));
  };
  if (type === "application/json") return withJson(request, context.heldBytes, imageEditBody, use);
  if (type !== "multipart/form-data") throw unsupportedType(request, "multipart/form-data or application/json");
  return withForm(request, context.heldBytes, async (parts, keepHeld) => {
    const body = formBody(parts);
    return use(readAs(imageEditForm, body), keepHeld, unknownMembers(imageEditForm, body));
  });
}

function checkEdit({ images, mask }: ImageEditBody | ImageEditForm): void {
  if (mask !== undefined && mask !== null) throw unsupportedMask("mask");
  if (images.length > maxServedReferences) {
    const message = `got ${images.length} images, this model takes at most ${maxServedReferences}`;
    throw new ApiError("invalid_request", "too_many_images", message, { param: "images" });
  }
}

/** A form as the JSON body that says the same: files named `image` or `image[]` become `images`. */
function formBody(parts: readonly FormPart[]): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  const images: { file: Uint8Array }[] = [];
  for (const { name, value } of parts) {
    const isImage = /^image(\[\d*\])?$/.test(name);
    if (typeof value === "string") {
      if (isImage)
        throw new ApiError("invalid_request", "invalid_form", "got an image as text, expected a file", { param: name });
      body[name] = value;
    } else if (isImage) {
      images.push({ file: value });
    } else {
      body[name] = "a file";
    }
  }
  return { ...body, images };
}
