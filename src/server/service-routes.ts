// The routes about the server itself: models, health, metrics, version, the OpenAPI document, the studio page.

import type { ServerContext } from "./context.js";
import { checkModel, describeModel } from "./drawing/models.js";
import { ApiError } from "./http/api-error.js";
import type { HttpResponse } from "./http/messages.js";
import { seconds } from "./responses/request.js";
import { json, type Route } from "./routing.js";
import { health, model, modelList, readiness, version } from "./service-schema.js";
import { studioFiles } from "./studio.js";

export function serviceRoutes(context: ServerContext): Route[] {
  const { engine, options, metrics } = context;
  const started = seconds();
  const healthy: HttpResponse = json({ status: "ok" });
  return [
    {
      method: "GET",
      path: "/v1/models",
      access: "key",
      summary: "The served model, in a list",
      handle: () => json({ object: "list", data: [describeModel(context, started)] }),
      answer: { "application/json": modelList },
    },
    // Names with a slash come escaped or as they are.
    ...["/v1/models/{id}", ...(options.modelName.includes("/") ? [`/v1/models/${options.modelName}`] : [])].map(
      (path): Route => ({
        method: "GET",
        path,
        access: "key",
        summary: "What the served model can do, its defaults and limits",
        handle: ({ id }) => {
          if (id !== "") checkModel(options.modelName, id);
          return json(describeModel(context, started));
        },
        answer: { "application/json": model },
      }),
    ),
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
      summary: "Whether a model is loaded and the GPU computes; 503 with the reason if not",
      handle: () => {
        const { state, reason, lastProbe, info } = engine;
        // Codes only: messages about checkpoints name folders.
        if (state !== "ready") {
          throw new ApiError("overloaded", "not_ready", `the engine is ${state}${reason ? `: ${reason.code}` : ""}`);
        }
        if (!lastProbe.ok) {
          throw new ApiError("overloaded", "not_ready", `the last drawing failed: ${lastProbe.error?.code}`);
        }
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
    ...studioFiles.map(
      ({ path, type, text }): Route => ({
        method: "GET",
        path,
        access: "open",
        summary: "A file of the studio page",
        handle: () => ({
          status: 200,
          headers: { "content-type": type, "cache-control": "no-cache", ...studioHeaders },
          body: text(),
        }),
        answer: { [type.split(";")[0] as string]: "file" },
      }),
    ),
  ];
}

/** The page loads nothing from elsewhere and runs no inline code; pictures also come as data and blobs. */
const studioHeaders = {
  "content-security-policy":
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};
