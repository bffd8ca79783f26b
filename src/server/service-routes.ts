// The routes about the server itself: models, health, metrics, version.

import { maxPixels } from "../engine/request.js";
import type { ServerContext } from "./context.js";
import {
  maxDistilledSteps,
  maxFramesPerSecond,
  maxServedFrames,
  maxServedImages,
  maxServedReferences,
  maxServedSide,
  maxServedSteps,
  minServedSide,
} from "./drawing/limits.js";
import { checkModel } from "./drawing/model-name.js";
import { json, unixSeconds } from "./http/answers.js";
import { ApiError } from "./http/api-error.js";
import type { HttpResponse } from "./http/messages.js";
import type { Route } from "./http/routes.js";
import { health, type Model, model, modelList, readiness, version } from "./service-schema.js";

export function serviceRoutes(context: ServerContext): Route[] {
  return [...modelRoutes(context), ...stateRoutes(context)];
}

function modelRoutes(context: ServerContext): Route[] {
  const { modelName, modelAliases } = context.options;
  const created = unixSeconds();
  const names = [modelName, ...modelAliases];
  // Anew for every request: the fingerprint is known when all weights have been read.
  const describe = (id: string) => ({ ...describeModel(context, created), id });
  const one: Route = {
    method: "GET",
    path: "/v1/models/{id}",
    access: "key",
    summary: "What the served model can do, its defaults and limits",
    handle: ({ id }) => {
      if (id !== "") checkModel(context.options, id);
      return json(describe(names.includes(id) ? id : modelName));
    },
    answer: { "application/json": model },
  };
  return [
    {
      method: "GET",
      path: "/v1/models",
      access: "key",
      summary: "The served model, and its aliases, in a list",
      handle: () => json({ object: "list", data: names.map(describe) }),
      answer: { "application/json": modelList },
    },
    one,
    // A name with a slash comes escaped or as it is.
    ...names
      .filter((name) => name.includes("/"))
      .map((name) => ({ ...one, path: `/v1/models/${name}`, handle: () => json(describe(name)) })),
  ];
}

/** @param created Unix time of the server's start */
function describeModel({ options, engine, model: { bounds } }: ServerContext, created: number): Model {
  const { isDistilled, defaults, sizeMultiple, promptTokens } = bounds;
  return {
    id: options.modelName,
    object: "model",
    created,
    owned_by: options.modelName.includes("/") ? options.modelName.split("/")[0]! : "daybreak",
    capabilities: {
      input: ["text", "image"],
      output: ["image", "video"],
      guidance: !isDistilled,
      video_method: "latent_walk",
    },
    defaults: {
      ...options.defaultSize,
      steps: defaults.steps,
      guidance_scale: defaults.guidance,
      output_format: "png",
      response_format: "url",
    },
    fingerprint: engine.info.fingerprint,
    limits: {
      min_side: minServedSide,
      max_side: maxServedSide,
      side_multiple: sizeMultiple,
      max_area: Math.min(maxPixels, maxServedSide ** 2),
      max_steps: isDistilled ? maxDistilledSteps : maxServedSteps,
      max_images: maxServedImages,
      max_references: maxServedReferences,
      max_prompt_tokens: promptTokens,
      max_frames: maxServedFrames,
      max_frames_per_second: maxFramesPerSecond,
    },
  };
}

function stateRoutes({ engine, options, metrics, store }: ServerContext): Route[] {
  const healthy: HttpResponse = json({ status: "ok" });
  return [
    {
      method: "GET",
      path: "/healthz",
      access: "open",
      summary: "Whether the server's process runs",
      handle: () => healthy,
      answer: { "application/json": health },
    },
    {
      method: "GET",
      path: "/readyz",
      access: "key",
      summary: "Whether a model is loaded, the GPU computes and files can be stored; 503 with the reason if not",
      handle: async () => {
        const { state, reason, lastProbe, info } = engine;
        // Codes only: messages about checkpoints name folders.
        if (state !== "ready") {
          const why = state === "silent" ? ": its heartbeat is missing" : reason ? `: ${reason.code}` : "";
          throw new ApiError("overloaded", "not_ready", `the engine is ${state}${why}`);
        }
        if (!lastProbe.ok) {
          throw new ApiError("overloaded", "not_ready", `the last drawing failed: ${lastProbe.error?.code}`);
        }
        const failure = await store.checkRoom();
        if (failure) throw new ApiError("overloaded", "not_ready", `nothing can be stored: ${failure.code}`);
        return json({ status: "ready", model: options.modelName, adapter: info.adapter });
      },
      answer: { "application/json": readiness },
    },
    {
      method: "GET",
      path: "/metrics",
      access: "key",
      summary: "Counters for Prometheus",
      handle: async () => ({
        status: 200,
        headers: { "content-type": metrics.registry.contentType },
        body: await metrics.registry.metrics(),
      }),
      answer: { "text/plain": "file" },
    },
    {
      method: "GET",
      path: "/version",
      access: "key",
      summary: "The versions of the server, the model and the GPU",
      handle: () => json({ version: options.version, model: options.modelName, adapter: engine.info.adapter }),
      answer: { "application/json": version },
    },
  ];
}
