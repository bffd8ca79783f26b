// The bodies of `POST /v1/responses` and `/v1/responses/compact`: what is accepted, with its bounds. Types, validation
// and the OpenAPI document come from here. Follows the Open Responses specification of 2026-04-24 and is wider where
// an image server has to be: everything that this server emits is accepted back as input. Unknown members are dropped
// everywhere, never kept: what is echoed or stored later has a known shape and depth.

import { z } from "zod";
import { maxFramesPerSecond, maxServedFrames, maxServedImages, maxServedPartialImages } from "../drawing/limits.js";
import { guidanceScale, integer, meaningless, optional, outputFormat, seed, side, steps } from "../drawing/schema.js";

const maxTextLength = 10 * 1024 * 1024;
/** A body's limit; a data URI of a whole picture has to fit into one string. */
const maxImageUrlLength = 100 * 1024 * 1024;

const text = z.string().max(maxTextLength);
const id = optional(z.string());
const itemStatus = optional(z.string());
const functionStatus = optional(z.enum(["in_progress", "completed", "incomplete"]));

const inputText = z.object({ type: z.literal("input_text"), text });

/** `image_data`, bare base64, is what this server itself emits for `b64_json`. */
const inputImage = z.object({
  type: z.literal("input_image"),
  image_url: optional(z.string().max(maxImageUrlLength)),
  image_data: optional(z.string().max(maxImageUrlLength)),
  detail: optional(z.enum(["low", "high", "auto"])),
});

const inputFile = z.object({
  type: z.literal("input_file"),
  filename: optional(z.string()),
  file_data: optional(z.string()),
  file_url: optional(z.string()),
});

const inputVideo = z.object({
  type: z.literal("input_video"),
  video_url: optional(z.string()),
  video_data: optional(z.string()),
});

const urlCitation = z.object({
  type: z.literal("url_citation"),
  url: optional(z.string()),
  title: optional(z.string()),
  start_index: optional(z.int()),
  end_index: optional(z.int()),
});

const outputText = z.object({
  type: z.literal("output_text"),
  text,
  annotations: optional(z.array(urlCitation)),
});

const refusal = z.object({ type: z.literal("refusal"), refusal: text });

const outputImage = z.object({
  type: z.literal("output_image"),
  image_url: optional(z.string().max(maxImageUrlLength)),
  image_data: optional(z.string().max(maxImageUrlLength)),
});

const outputVideo = z.object({
  type: z.literal("output_video"),
  video_url: optional(z.string()),
  video_data: optional(z.string()),
});

const part = z.discriminatedUnion("type", [
  inputText,
  inputImage,
  inputFile,
  inputVideo,
  outputText,
  refusal,
  outputImage,
  outputVideo,
]);
export type InputPart = z.infer<typeof part>;

const message = (role: "user" | "assistant" | "system" | "developer", parts: z.ZodType<InputPart>) =>
  z.object({
    type: z.literal("message"),
    id,
    role: z.literal(role),
    content: z.union([text, z.array(parts)]),
    phase: optional(z.enum(["commentary", "final_answer"])),
    status: itemStatus,
  });

const messageItem = z.discriminatedUnion("role", [
  message("user", z.discriminatedUnion("type", [inputText, inputImage, inputFile])),
  message("assistant", part),
  message("system", z.discriminatedUnion("type", [inputText])),
  message("developer", z.discriminatedUnion("type", [inputText])),
]);

const functionCall = z.object({
  type: z.literal("function_call"),
  id,
  call_id: z.string().min(1).max(64),
  name: z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, "expected 1 to 64 letters, digits, _ or -"),
  arguments: text,
  status: functionStatus,
});

const functionCallOutput = z.object({
  type: z.literal("function_call_output"),
  id,
  call_id: z.string().min(1).max(64),
  output: z.union([text, z.array(z.discriminatedUnion("type", [inputText, inputImage, inputFile, inputVideo]))]),
  status: functionStatus,
});

const reasoning = z.object({
  type: z.literal("reasoning"),
  id,
  summary: z.array(z.object({ type: z.literal("summary_text"), text })),
  content: optional(z.array(z.object({ type: z.string(), text: optional(text) }))),
  encrypted_content: optional(z.string()),
});

const compaction = z.object({ type: z.literal("compaction"), id, encrypted_content: z.string().max(maxTextLength) });
const itemReference = z.object({ type: z.literal("item_reference"), id: z.string() });

/** What the openai profile emits; without `result` the picture is looked up by the id. */
const imageGenerationCall = z.object({
  type: z.literal("image_generation_call"),
  id: z.string(),
  status: itemStatus,
  result: optional(z.string().max(maxImageUrlLength)),
});

const typedItem = z.discriminatedUnion("type", [
  messageItem,
  functionCall,
  functionCallOutput,
  reasoning,
  compaction,
  itemReference,
  imageGenerationCall,
]);
export type InputItem = z.infer<typeof typedItem>;

/** `type` may be missing: with `role` it is a message, with nothing but `id` a reference. */
const item = z.preprocess((value) => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const { type, role } = value as { type?: unknown; role?: unknown };
  if (type !== undefined && type !== null) return value;
  return { ...value, type: role === undefined ? "item_reference" : "message" };
}, typedItem);

const input = optional(z.union([text, z.array(item)]));

const responseFormat = z.enum(["url", "b64_json", "data_url"]);
export const outputProfiles = ["message", "max", "openai"] as const;
export type OutputProfile = (typeof outputProfiles)[number];
const outputItem = z.enum(outputProfiles);

const drawingOptions = {
  width: optional(side),
  height: optional(side),
  steps: optional(steps),
  guidance_scale: optional(guidanceScale),
  negative_prompt: optional(text),
  response_format: optional(responseFormat),
  output_item: optional(outputItem),
  progress: optional(z.boolean()),
};

const imageOptions = z.strictObject({
  ...drawingOptions,
  num_images: optional(integer(1, maxServedImages)),
  output_format: optional(outputFormat),
  output_compression: optional(integer(0, 100)),
  partial_images: optional(integer(0, maxServedPartialImages)),
});

const videoOptions = z.strictObject({
  ...drawingOptions,
  num_frames: optional(integer(1, maxServedFrames)),
  frames_per_second: optional(integer(1, maxFramesPerSecond)),
});

const providerOptions = z.strictObject({
  image: optional(imageOptions),
  video: optional(videoOptions),
  max: optional(z.strictObject({ target_endpoint: optional(z.string()) })),
});

/** Recognised only to be refused in clear words. */
const functionTool = z.object({ type: z.literal("function"), name: z.string().min(1).max(64) });

const imageGenerationTool = z.object({
  type: z.literal("image_generation"),
  size: optional(z.string()),
  output_format: optional(outputFormat),
  output_compression: optional(integer(0, 100)),
  partial_images: optional(integer(0, maxServedPartialImages)),
  n: optional(integer(1, maxServedImages)),
  // refused unless they ask for nothing
  background: optional(z.enum(["auto", "opaque", "transparent"])),
  input_image_mask: optional(z.unknown()),
  ...{ action: meaningless, input_fidelity: meaningless, model: meaningless, moderation: meaningless },
  quality: meaningless,
});
export type ImageGenerationTool = z.infer<typeof imageGenerationTool>;

const toolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.object({ type: z.literal("image_generation") }),
  z.object({ type: z.literal("function"), name: z.string() }),
  z.object({
    type: z.literal("allowed_tools"),
    tools: z
      .array(z.object({ type: z.string() }))
      .min(1)
      .max(128),
    mode: optional(z.enum(["none", "auto", "required"])),
  }),
]);

const reasoningParam = z.object({
  effort: optional(z.enum(["none", "low", "medium", "high", "xhigh"])),
  summary: optional(z.enum(["concise", "detailed", "auto"])),
});

const textParam = z.object({
  format: optional(
    z.discriminatedUnion("type", [
      z.object({ type: z.literal("text") }),
      z.object({ type: z.literal("json_object") }),
      z.object({ type: z.literal("json_schema") }),
    ]),
  ),
  verbosity: optional(z.enum(["low", "medium", "high"])),
});

const metadata = z
  .record(z.string().max(64, "expected keys of at most 64 characters"), z.string().max(512))
  .refine((pairs) => Object.keys(pairs).length <= 16, "expected at most 16 pairs");

const shared = {
  input,
  previous_response_id: optional(z.string()),
  instructions: optional(text),
  prompt_cache_key: optional(z.string().max(64)),
};

/** The members that only HTTP knows; over a WebSocket they must not appear. */
export const transportMembers = ["stream", "stream_options", "background"] as const;

/** Body of `POST /v1/responses`. Unknown members on the top level are ignored, and the answer says so. */
export const createResponseBody = z.object({
  ...shared,
  model: optional(z.string()),
  include: optional(z.array(z.enum(["reasoning.encrypted_content", "message.output_text.logprobs"]))),
  tools: optional(z.array(z.discriminatedUnion("type", [functionTool, imageGenerationTool]))),
  tool_choice: optional(toolChoice),
  metadata: optional(metadata),
  text: optional(textParam),
  temperature: optional(z.number().min(0).max(2)),
  top_p: optional(z.number().min(0).max(1)),
  presence_penalty: optional(z.number().min(-2).max(2)),
  frequency_penalty: optional(z.number().min(-2).max(2)),
  parallel_tool_calls: optional(z.boolean()),
  stream: optional(z.boolean()),
  stream_options: optional(z.object({ include_obfuscation: optional(z.boolean()) })),
  background: optional(z.boolean()),
  max_output_tokens: optional(z.int().min(16)),
  max_tool_calls: optional(z.int().min(1)),
  reasoning: optional(reasoningParam),
  safety_identifier: optional(z.string().max(64)),
  truncation: optional(z.enum(["auto", "disabled"])),
  store: optional(z.boolean()),
  service_tier: optional(z.enum(["auto", "default", "flex", "priority"])),
  top_logprobs: optional(integer(0, 20)),
  ...{ user: meaningless, prompt_cache_retention: meaningless, context_management: meaningless },
  // extensions
  seed: optional(seed),
  n: optional(integer(1, maxServedImages)),
  output_item: optional(outputItem),
  provider_options: optional(providerOptions),
});
export type CreateResponseBody = z.infer<typeof createResponseBody>;

/** Body of `POST /v1/responses/compact`. */
export const compactBody = z.object({ ...shared, model: z.string() });
export type CompactBody = z.infer<typeof compactBody>;
