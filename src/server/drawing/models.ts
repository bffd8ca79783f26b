// The served model as `/v1/models` describes it, and the check that a request means it.

import { defaultGuidance, defaultSteps, maxPixels, maxPromptTokens, sizeMultiple } from "../../engine/request.js";
import type { ServerContext } from "../context.js";
import { ApiError } from "../http/api-error.js";
import {
  maxDistilledSteps,
  maxFrames,
  maxFramesPerSecond,
  maxNumImages,
  maxOutputSide,
  maxReferences,
  maxSteps,
  minOutputSide,
} from "../responses/request-schema.js";
import type { Model } from "../service-schema.js";

/** Refuses a name that is not served. Throws ApiError `model_not_found`, 404. */
export function checkModel(served: string, requested: string | null | undefined): void {
  if (requested === undefined || requested === null || requested === served) return;
  const message = `the model ${JSON.stringify(requested.slice(0, 200))} is not served here: currently serving ${JSON.stringify(served)}`;
  throw new ApiError("not_found", "model_not_found", message, { param: "model" });
}

/** @param created Unix time of the server's start */
export function describeModel({ options, defaults }: ServerContext, created: number): Model {
  const { isDistilled } = defaults;
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
      steps: defaultSteps(defaults),
      guidance_scale: defaultGuidance(defaults),
      output_format: "png",
      response_format: "url",
    },
    limits: {
      min_side: minOutputSide,
      max_side: maxOutputSide,
      side_multiple: sizeMultiple,
      max_area: Math.min(maxPixels, maxOutputSide ** 2),
      max_steps: isDistilled ? maxDistilledSteps : maxSteps,
      max_images: maxNumImages,
      max_references: maxReferences,
      max_prompt_tokens: maxPromptTokens,
      max_frames: maxFrames,
      max_frames_per_second: maxFramesPerSecond,
    },
  };
}
