// What the body of `POST /v1/responses` asks for: what is to be drawn, and how the answer is to look. Refuses what is
// wrong by the body alone. The rules are those of the contract, one function each.

import type { DrawingRequest } from "../drawing/judge.js";
import { checkModel } from "../drawing/model-name.js";
import { ApiError } from "../http/api-error.js";
import type { CreateResponseBody, ImageGenerationTool } from "./request-schema.js";

export type OutputProfile = "message" | "max" | "openai";
export type ResponseFormat = "url" | "b64_json" | "data_url";

/** How the result is to be wrapped. */
export type Presentation = {
  profile: OutputProfile;
  format: ResponseFormat;
  /** Whether steps are reported in events. */
  progress: boolean;
};

const defaultFrames = 25;
const defaultFramesPerSecond = 16;
const defaultQuality = 90;

/** What a body asks for. */
export type ResponseRequest = {
  presentation: Presentation;
  /** All but what the conversation says. */
  drawing: Omit<DrawingRequest, "prompt" | "images">;
};

/**
 * Reads a body as far as nothing else is needed for that.
 * Throws ApiError: `model_not_found` (404), else `invalid_request`.
 * @param served the name of the served model
 */
export function readRequest(served: string, body: CreateResponseBody): ResponseRequest {
  checkBody(served, body);
  return { presentation: presentation(body), drawing: drawingOptions(body) };
}

function checkBody(served: string, body: CreateResponseBody): void {
  checkModel(served, body.model);
  if (body.background && body.store === false) {
    throw refuse(
      "background",
      "got background with store: false, expected store: true: a background response is fetched later",
    );
  }
  const format = body.text?.format?.type;
  if (format === "json_object" || format === "json_schema") {
    throw refuse("text.format", `got the text format ${format}, expected text: this model draws`);
  }
  checkTools(body);
  const { image, video } = body.provider_options ?? {};
  const isOpenai = (video ?? image)?.output_item === "openai";
  if (video && isOpenai) {
    const message = "got output_item openai for a video, expected message or max: that profile has pictures only";
    throw refuse("provider_options.video.output_item", message);
  }
}

function checkTools({ tools, tool_choice: choice }: CreateResponseBody): void {
  for (const [i, tool] of (tools ?? []).entries()) {
    if (tool.type !== "function") continue;
    throw refuse(
      `tools[${i}]`,
      "got a function tool, expected image_generation or none: this model draws; it cannot call functions",
    );
  }
  const hasImageTool = (tools ?? []).length > 0;
  const wants = (what: string) => refuse("tool_choice", `got the tool choice ${what}, which is not among the tools`);
  if (choice === "required" && !hasImageTool) throw wants('"required"');
  if (typeof choice !== "object" || choice === null) return;
  if (choice.type === "image_generation" && !hasImageTool) throw wants("image_generation");
  if (choice.type === "function") throw wants("of a function");
  if (choice.type !== "allowed_tools") return;
  const { tools: allowed } = choice as { tools: { type: string }[] };
  if (!hasImageTool || allowed.some(({ type }) => type !== "image_generation")) throw wants("of allowed tools");
}

/** How the answer is to look. */
function presentation(body: CreateResponseBody): Presentation {
  const { image, video } = body.provider_options ?? {};
  const block = video ?? image;
  const profile = block?.output_item ?? (imageTool(body) && !video ? "openai" : "message");
  return { profile, format: block?.response_format ?? "url", progress: block?.progress ?? false };
}

function imageTool(body: CreateResponseBody): ImageGenerationTool | undefined {
  return (body.tools ?? []).find((tool): tool is ImageGenerationTool => tool.type === "image_generation");
}

function drawingOptions(body: CreateResponseBody): ResponseRequest["drawing"] {
  const { image, video } = body.provider_options ?? {};
  const tool = imageTool(body);
  const block = video ?? image;
  const room = video ? "video" : "image";
  return {
    truncation: body.truncation ?? "disabled",
    negativePrompt: block?.negative_prompt,
    width: block?.width,
    height: block?.height,
    size: tool?.size,
    steps: block?.steps,
    guidance: block?.guidance_scale,
    seed: body.seed,
    numImages: video ? 1 : (image?.num_images ?? body.n ?? tool?.n ?? 1),
    partialImages: video ? 0 : (image?.partial_images ?? tool?.partial_images ?? 0),
    output: video
      ? {
          type: "video",
          frames: video.num_frames ?? defaultFrames,
          framesPerSecond: video.frames_per_second ?? defaultFramesPerSecond,
        }
      : {
          type: "image",
          format: image?.output_format ?? tool?.output_format ?? "png",
          quality: image?.output_compression ?? tool?.output_compression ?? defaultQuality,
        },
    param: (option) => {
      if (option === "prompt") return "input";
      if (option === "size") return `tools[${body.tools?.indexOf(tool as ImageGenerationTool)}].size`;
      return `provider_options.${room}.${option}`;
    },
  };
}

function refuse(param: string, message: string): ApiError {
  return new ApiError("invalid_request", "invalid_value", message, { param });
}
