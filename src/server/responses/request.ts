// From the body of `POST /v1/responses` to what will be done: judges everything that can be refused before a job
// exists, and builds the resource that the answer starts from. The rules are those of the contract, one function each.

import { type RgbImage, sizeMultiple } from "../../engine/request.js";
import type { ServerContext } from "../context.js";
import { type Drawing, planDrawing } from "../drawing/draw.js";
import { checkModel } from "../drawing/models.js";
import { ApiError } from "../http/api-error.js";
import { newId } from "../http/ids.js";
import { type CreateResponseBody, type ImageGenerationTool, maxOutputSide, minOutputSide } from "./request-schema.js";
import type { ResponseResource } from "./response-schema.js";

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

/**
 * The checks that need nothing but the body. Throws ApiError: `model_not_found` (404), else `invalid_request`.
 */
export function checkBody(context: ServerContext, body: CreateResponseBody): void {
  checkModel(context.options.modelName, body.model);
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
export function presentation(body: CreateResponseBody): Presentation {
  const { image, video } = body.provider_options ?? {};
  const block = video ?? image;
  const profile = block?.output_item ?? (imageTool(body) && !video ? "openai" : "message");
  return { profile, format: block?.response_format ?? "url", progress: block?.progress ?? false };
}

function imageTool(body: CreateResponseBody): ImageGenerationTool | undefined {
  return (body.tools ?? []).find((tool): tool is ImageGenerationTool => tool.type === "image_generation");
}

/** What is to be drawn. Throws ApiError. */
export function planResponse(
  context: ServerContext,
  body: CreateResponseBody,
  prompt: string,
  references: RgbImage[],
): Drawing {
  const { image, video } = body.provider_options ?? {};
  const tool = imageTool(body);
  const size = toolSize(tool, body);
  const block = video ?? image;
  const room = video ? "video" : "image";
  return planDrawing(context, {
    prompt,
    truncation: body.truncation ?? "disabled",
    negativePrompt: block?.negative_prompt,
    width: block?.width ?? size?.width,
    height: block?.height ?? size?.height,
    steps: block?.steps,
    guidance: block?.guidance_scale,
    seed: body.seed,
    numImages: video ? 1 : (image?.num_images ?? body.n ?? tool?.n ?? 1),
    partialImages: video ? 0 : (image?.partial_images ?? tool?.partial_images ?? 0),
    references,
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
    param: (option) => (option === "prompt" ? "input" : `provider_options.${room}.${option}`),
  });
}

/** The size that the tool asks for; "auto" and nothing leave it open. */
function toolSize(tool: ImageGenerationTool | undefined, body: CreateResponseBody) {
  if (!tool?.size || tool.size === "auto") return undefined;
  return parseSize(tool.size, `tools[${(body.tools ?? []).indexOf(tool)}].size`);
}

/** A size such as 512x768, within the bounds that `width` and `height` have. Throws ApiError. */
export function parseSize(text: string, param: string): { width: number; height: number } {
  const [width = 0, height = 0] = /^(\d{1,5})x(\d{1,5})$/.exec(text)?.slice(1).map(Number) ?? [];
  if ([width, height].every((side) => side >= minOutputSide && side <= maxOutputSide && side % sizeMultiple === 0)) {
    return { width, height };
  }
  const expected = `WIDTHxHEIGHT in multiples of ${sizeMultiple} from ${minOutputSide} to ${maxOutputSide}, or auto`;
  const message = `got the size ${JSON.stringify(text.slice(0, 40))}, expected ${expected}`;
  throw new ApiError("invalid_request", "request_size_invalid", message, { param });
}

/** The resource as it is before anything has been drawn: what the caller sent is echoed, the rest has its constants. */
export function newResource(context: ServerContext, body: CreateResponseBody): ResponseResource {
  const isOpenai = presentation(body).profile === "openai";
  return {
    id: newId("resp"),
    object: "response",
    created_at: seconds(),
    completed_at: null,
    status: "queued",
    incomplete_details: null,
    model: context.options.modelName,
    previous_response_id: body.previous_response_id ?? null,
    instructions: body.instructions ?? null,
    output: [],
    error: null,
    tools: isOpenai ? (body.tools ?? []) : [],
    tool_choice: isOpenai ? (body.tool_choice ?? "auto") : "auto",
    truncation: body.truncation ?? "disabled",
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    text: { format: { type: "text" }, ...(body.text?.verbosity && { verbosity: body.text.verbosity }) },
    top_p: body.top_p ?? 1,
    presence_penalty: body.presence_penalty ?? 0,
    frequency_penalty: body.frequency_penalty ?? 0,
    top_logprobs: body.top_logprobs ?? 0,
    temperature: body.temperature ?? 1,
    reasoning: body.reasoning
      ? { effort: body.reasoning.effort ?? null, summary: body.reasoning.summary ?? null }
      : null,
    usage: null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    store: body.store ?? true,
    background: body.background ?? false,
    service_tier: body.service_tier ?? "default",
    metadata: body.metadata ?? {},
    safety_identifier: body.safety_identifier ?? null,
    prompt_cache_key: body.prompt_cache_key ?? null,
  };
}

/** Unix time. */
export function seconds(): number {
  return Math.floor(Date.now() / 1000);
}

function refuse(param: string, message: string): ApiError {
  return new ApiError("invalid_request", "invalid_value", message, { param });
}
