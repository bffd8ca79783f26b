// What the body of `POST /v1/responses` asks for: what is to be drawn, and how the answer is to look. Refuses what is
// wrong by the body alone. The rules are those of the contract, one function each.

import { unsupportedBackground, unsupportedMask } from "../drawing/errors.js";
import type { DrawingRequest } from "../drawing/judge.js";
import { checkModel, type ServedNames } from "../drawing/model-name.js";
import { unknownWarnings } from "../drawing/unknown-options.js";
import { ApiError } from "../http/api-error.js";
import type { CreateResponseBody, ImageGenerationTool, OutputProfile } from "./request-schema.js";

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

/** What a server decides about bodies. */
export type RequestOptions = ServedNames & {
  /** How pictures are wrapped where nothing of the request says it. */
  outputItem: OutputProfile;
};

/** What a body asks for. */
export type ResponseRequest = {
  presentation: Presentation;
  /** All but what the conversation says. */
  drawing: Omit<DrawingRequest, "prompt" | "images">;
};

/**
 * Reads a body as far as nothing else is needed for that.
 * Throws ApiError: `model_not_found` (404), else `invalid_request`.
 * @param unknown paths of the body's members that nobody reads
 */
export function readRequest(
  options: RequestOptions,
  body: CreateResponseBody,
  unknown: readonly string[],
): ResponseRequest {
  checkBody(options, body);
  return { presentation: presentation(options, body), drawing: drawingOptions(body, unknown) };
}

function checkBody(names: ServedNames, body: CreateResponseBody): void {
  checkModel(names, body.model);
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
  checkImageTool(body);
  const { image, video } = body.provider_options ?? {};
  const inBlock = (video ?? image)?.output_item;
  if (video && (inBlock ?? body.output_item) === "openai") {
    const message = "got output_item openai for a video, expected message or max: that profile has pictures only";
    throw refuse(inBlock ? "provider_options.video.output_item" : "output_item", message);
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

/** What the images routes refuse as well. */
function checkImageTool(body: CreateResponseBody): void {
  const tool = imageTool(body);
  const at = `tools[${body.tools?.indexOf(tool as ImageGenerationTool)}]`;
  if (tool?.background === "transparent") throw unsupportedBackground(`${at}.background`);
  if (tool?.input_image_mask) throw unsupportedMask(`${at}.input_image_mask`);
}

/** How the answer is to look: as the request says, else as the tool it lists is known for, else as the server says. */
function presentation({ outputItem }: RequestOptions, body: CreateResponseBody): Presentation {
  const { image, video } = body.provider_options ?? {};
  const block = video ?? image;
  const asked = block?.output_item ?? body.output_item;
  const usual = imageTool(body) ? "openai" : outputItem;
  const profile = asked ?? (video && usual === "openai" ? "message" : usual);
  return { profile, format: block?.response_format ?? "url", progress: block?.progress ?? false };
}

function imageTool(body: CreateResponseBody): ImageGenerationTool | undefined {
  return (body.tools ?? []).find((tool): tool is ImageGenerationTool => tool.type === "image_generation");
}

/** Where a body has the options that others have on its top level. */
const places = {
  ...Object.fromEntries(
    ["width", "height", "steps", "guidance_scale", "negative_prompt", "output_format", "output_compression"]
      .concat(["response_format", "partial_images", "progress"])
      .map((option) => [option, `provider_options.image.${option}`]),
  ),
  ...{ num_frames: "provider_options.video.num_frames", frames_per_second: "provider_options.video.frames_per_second" },
  ...{ seed: "seed", n: "n", output_item: "output_item", size: "provider_options.image.width, with height," },
};

function drawingOptions(body: CreateResponseBody, unknown: readonly string[]): ResponseRequest["drawing"] {
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
    warnings: unknownWarnings(unknown, places),
    param: (option) => {
      if (option === "prompt") return "input";
      if (option === "seed") return "seed";
      if (option === "size") return `tools[${body.tools?.indexOf(tool as ImageGenerationTool)}].size`;
      return `provider_options.${room}.${option}`;
    },
  };
}

function refuse(param: string, message: string): ApiError {
  return new ApiError("invalid_request", "invalid_value", message, { param });
}
