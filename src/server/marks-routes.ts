// `POST /v1/marks/detect`: which marks a file carries that say that a machine made it. The file is judged by its header at
// once and then looked at in a thread of its own, never in the engine's process, in its key's turn: this route's queue is not
// that of the pictures, so that neither waits for the other.

import { z } from "zod";
import type { ServerContext } from "./context.js";
import { assetOfUrl } from "./drawing/files.js";
import { atFault } from "./drawing/reference-files.js";
import { findAsset, type ImageSource, readSource } from "./drawing/references.js";
import { json } from "./http/answers.js";
import { ApiError } from "./http/api-error.js";
import { mediaType, unsupportedType, whileHeld, wholeBody, withBody } from "./http/body.js";
import type { Caller } from "./http/caller.js";
import { type FormPart, withForm } from "./http/forms.js";
import { withJson } from "./http/json.js";
import type { HttpResponse } from "./http/messages.js";
import type { Call, Route } from "./http/routes.js";

const fileTypes = ["image/png", "image/jpeg", "image/webp", "video/mp4", "application/octet-stream"];

const marksBody = z.object({
  /** A data: URI, or the URL of a picture or a video of this server. */
  image_url: z.string(),
});

/** What `detectMarks` of media/marks/detect.ts finds. */
const marks = z.object({
  object: z.literal("marks"),
  verdict: z.enum(["daybreak", "ai", "none"]),
  format: z.enum(["png", "jpeg", "webp", "mp4"]),
  metadata: z.object({
    found: z.boolean(),
    digital_source_type: z.string().optional(),
    creator_tool: z.string().optional(),
    signed: z.boolean().optional(),
  }),
  credentials: z.object({
    found: z.boolean(),
    checked: z.boolean(),
    reason: z.string().optional(),
    state: z.enum(["trusted", "valid", "invalid"]).optional(),
    signer: z.string().optional(),
    generator: z.string().optional(),
    digital_source_type: z.string().optional(),
    actions: z.array(z.string()).optional(),
    ingredients: z.int().optional(),
    problems: z.array(z.string()).optional(),
  }),
  watermark: z.object({
    found: z.boolean(),
    checked: z.boolean(),
    reason: z.string().optional(),
    z: z.number().optional(),
    kind: z.enum(["text", "references", "video"]).optional(),
    id: z.int().optional(),
    scale: z.number().optional(),
    degrees: z.number().optional(),
  }),
});

export function marksRoutes(context: ServerContext): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/marks/detect",
      access: "key",
      summary: "Which marks a picture or a video carries that say that a machine made it",
      handle: (call) => detect(context, call),
      body: {
        ...Object.fromEntries(fileTypes.map((type) => [type, "file" as const])),
        "multipart/form-data": "file form",
        "application/json": marksBody,
      },
      answer: { "application/json": marks },
    },
  ];
}

async function detect(context: ServerContext, { request, caller }: Call): Promise<HttpResponse> {
  const { heldBytes, detection } = context;
  detection.jobs.checkRoom(caller.key);
  const type = mediaType(request);
  if (type === "application/json") {
    return withJson(request, heldBytes, marksBody, ({ image_url }) => detectAt(context, image_url, caller));
  }
  if (type === "multipart/form-data") {
    return withForm(request, heldBytes, (parts) => detectIn(context, fileOf(parts), "file", caller));
  }
  // Of which of these it is the bytes tell.
  if (fileTypes.includes(type)) {
    return withBody(request, heldBytes, wholeBody, (bytes) => detectIn(context, bytes, "file", caller));
  }
  throw unsupportedType(request, `${fileTypes.join(", ")}, multipart/form-data or application/json`);
}

function fileOf(parts: readonly FormPart[]): Uint8Array {
  const files = parts.filter(({ name }) => name === "file");
  const [{ value } = { value: "" }] = files;
  if (files.length === 1 && typeof value !== "string") return value;
  const got = files.length === 1 ? "a text" : `${files.length} parts`;
  throw new ApiError("invalid_request", "invalid_form", `got ${got} named file, expected one file`, { param: "file" });
}

async function detectAt(context: ServerContext, url: string, caller: Caller): Promise<HttpResponse> {
  const param = "image_url";
  const video = assetOfUrl(url, "vid");
  const source: ImageSource = video === undefined ? { from: "url", url, param } : { from: "asset", id: video, param };
  const id = video ?? assetOfUrl(url);
  const stored = id === undefined ? undefined : findAsset(context, id, caller);
  return whileHeld(context.heldBytes, stored?.bytes ?? 0, async () => {
    const bytes = await readSource(context, source, caller);
    return detectIn(context, bytes, param, caller);
  });
}

/** @param param the member of the request that holds the file, for errors */
async function detectIn(
  { detection }: ServerContext,
  bytes: Uint8Array,
  param: string,
  caller: Caller,
): Promise<HttpResponse> {
  return atFault(param, async () => {
    const { checkFile } = await import("../media/marks/detect.js");
    checkFile(bytes);
    const options = await detection.options();
    const { key, signal } = caller;
    const look = (ended: AbortSignal) => detection.detector.detect(bytes, options, ended);
    return json(await detection.jobs.submit(look, { caller: key, signal, bytes: bytes.length }).result);
  });
}
