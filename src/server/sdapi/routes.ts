// AUTOMATIC1111's API in its smallest useful form, for clients that speak nothing else: `/sdapi/v1/txt2img` and
// `img2img`, and what they ask before and while they draw. One model, one sampler, no settings.

import { checkModel } from "../drawing/model-name.js";
import { unknownWarnings } from "../drawing/unknown-options.js";
import { json } from "../http/answers.js";
import { takesJson } from "../http/json.js";
import type { Route } from "../http/routes.js";
import { draw, type SdapiContext, samplerName } from "./draw.js";
import { DrawingProgress } from "./progress.js";
import {
  img2imgBody,
  sdImages,
  sdModels,
  sdOptions,
  sdOptionsBody,
  sdOptionsSet,
  sdProgress,
  sdSamplers,
  txt2imgBody,
} from "./schema.js";

export function sdapiRoutes(context: SdapiContext): Route[] {
  const progress = new DrawingProgress();
  const drawingRoute = (name: string, schema: typeof txt2imgBody | typeof img2imgBody, summary: string): Route => ({
    method: "POST",
    path: `/sdapi/v1/${name}`,
    access: "key",
    summary,
    isIdempotent: true,
    ...takesJson(context.heldBytes, schema, (body, call, _, unknown) =>
      context.idempotency.once(call, body, (caller) => draw(context, progress, caller, { body, unknown })),
    ),
    answer: { "application/json": sdImages },
  });
  return [
    drawingRoute("txt2img", txt2imgBody, "AUTOMATIC1111's pictures from a prompt"),
    drawingRoute("img2img", img2imgBody, "AUTOMATIC1111's pictures from a prompt and pictures"),
    {
      method: "GET",
      path: "/sdapi/v1/progress",
      access: "key",
      summary: "How far the caller's drawing on these routes is",
      handle: ({ caller }) => json(progress.of(caller.key)),
      answer: { "application/json": sdProgress },
    },
    ...settingRoutes(context),
  ];
}

function settingRoutes(context: SdapiContext): Route[] {
  const { modelName, modelAliases } = context.options;
  const models = [modelName, ...modelAliases].map((name) => ({
    ...{ title: name, model_name: name, filename: name },
    ...{ hash: null, sha256: null, config: null },
  }));
  return [
    {
      method: "GET",
      path: "/sdapi/v1/options",
      access: "key",
      summary: "The served model, as AUTOMATIC1111 says it",
      handle: () => json({ sd_model_checkpoint: modelName, samples_format: "png" }),
      answer: { "application/json": sdOptions },
    },
    {
      method: "POST",
      path: "/sdapi/v1/options",
      access: "key",
      summary: "Choose the model: only the served one can be chosen",
      ...takesJson(
        context.heldBytes,
        sdOptionsBody,
        async ({ sd_model_checkpoint: name }, _call, _keepHeld, unknown) => {
          checkModel(context.options, name);
          const warnings = unknownWarnings(unknown, {});
          return json(warnings.length > 0 ? { warnings } : {});
        },
      ),
      answer: { "application/json": sdOptionsSet },
    },
    {
      method: "GET",
      path: "/sdapi/v1/sd-models",
      access: "key",
      summary: "The served model, and its aliases, as AUTOMATIC1111 lists them",
      handle: () => json(models),
      answer: { "application/json": sdModels },
    },
    {
      method: "GET",
      path: "/sdapi/v1/samplers",
      access: "key",
      summary: "The sampler of these models, as AUTOMATIC1111 lists them",
      handle: () => json([{ name: samplerName, aliases: ["euler"], options: {} }]),
      answer: { "application/json": sdSamplers },
    },
  ];
}
