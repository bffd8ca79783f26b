// What `/v1/responses` answers: the response resource, its items and parts in the three output profiles, and the events
// of a stream. Types and the OpenAPI document come from here; nothing that the server builds itself is validated at
// run time. In the default profile and without the opt-in events every answer also fits the Open Responses schemas.

import { z } from "zod";
import { errorMember } from "../http/api-error.js";

const urlCitation = z.object({
  type: z.literal("url_citation"),
  url: z.string(),
  title: z.string(),
  start_index: z.int(),
  end_index: z.int(),
});

const outputTextPart = z.object({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.array(urlCitation),
  logprobs: z.array(z.never()),
});
export type OutputTextPart = z.infer<typeof outputTextPart>;

/** The default profile's picture: the only image part that the specification admits in a message. */
const inputImagePart = z.object({
  type: z.literal("input_image"),
  image_url: z.string().nullable(),
  image_data: z.string().optional(),
  detail: z.literal("auto"),
  format: z.string().optional(),
  width: z.int().optional(),
  height: z.int().optional(),
  seed: z.int().optional(),
  asset_id: z.string().nullable().optional(),
  expires_at: z.int().nullable().optional(),
});

/** The default profile's video; `method` says how an image model made it. */
const inputVideoPart = z.object({
  type: z.literal("input_video"),
  video_url: z.string(),
  video_data: z.string().optional(),
  format: z.literal("mp4"),
  width: z.int(),
  height: z.int(),
  frames_per_second: z.int(),
  num_frames: z.int(),
  method: z.literal("latent_walk"),
  seed: z.int(),
  asset_id: z.string().nullable(),
  expires_at: z.int().nullable(),
});

/** Profile max: exactly one of `image_url` and `image_data`. */
const outputImagePart = z.object({
  type: z.literal("output_image"),
  image_url: z.string().optional(),
  image_data: z.string().optional(),
  format: z.string(),
});

const outputVideoPart = z.object({
  type: z.literal("output_video"),
  video_url: z.string().optional(),
  video_data: z.string().optional(),
  format: z.literal("mp4"),
  frames_per_second: z.int(),
  num_frames: z.int(),
});

const outputPart = z.discriminatedUnion("type", [
  outputTextPart,
  inputImagePart,
  inputVideoPart,
  outputImagePart,
  outputVideoPart,
]);
export type OutputPart = z.infer<typeof outputPart>;

const itemStatus = z.enum(["in_progress", "completed", "incomplete"]);

const outputMessage = z.object({
  type: z.literal("message"),
  id: z.string(),
  status: itemStatus,
  role: z.literal("assistant"),
  content: z.array(outputPart),
});

/** Profile openai: one item per picture. */
const imageGenerationCall = z.object({
  type: z.literal("image_generation_call"),
  id: z.string(),
  status: z.enum(["in_progress", "generating", "completed", "failed"]),
  result: z.string().nullable(),
});

const outputItem = z.discriminatedUnion("type", [outputMessage, imageGenerationCall]);
export type OutputItem = z.infer<typeof outputItem>;

const timings = z.object({
  queue: z.number(),
  encode_prompt: z.number(),
  denoise: z.number(),
  decode: z.number(),
  encode_file: z.number(),
});

const usage = z.object({
  input_tokens: z.int(),
  output_tokens: z.int(),
  total_tokens: z.int(),
  input_tokens_details: z.object({ cached_tokens: z.int() }),
  output_tokens_details: z.object({ reasoning_tokens: z.int() }),
  image_generation_details: z
    .object({
      width: z.int(),
      height: z.int(),
      megapixels: z.number(),
      steps: z.int(),
      image_count: z.int(),
      seeds: z.array(z.int()),
      timings_ms: timings,
    })
    .optional(),
});
export type Usage = z.infer<typeof usage>;

const responseStatus = z.enum(["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]);

/** All 31 members that the specification requires, always; `warnings` only if there are any. */
export const responseResource = z.object({
  id: z.string(),
  object: z.literal("response"),
  created_at: z.int(),
  completed_at: z.int().nullable(),
  status: responseStatus,
  incomplete_details: z.object({ reason: z.string() }).nullable(),
  model: z.string(),
  previous_response_id: z.string().nullable(),
  instructions: z.string().nullable(),
  output: z.array(outputItem),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  tools: z.array(z.looseObject({ type: z.string() })),
  tool_choice: z.union([z.string(), z.looseObject({ type: z.string() })]),
  truncation: z.enum(["auto", "disabled"]),
  parallel_tool_calls: z.boolean(),
  text: z.object({
    format: z.object({ type: z.literal("text") }),
    verbosity: z.enum(["low", "medium", "high"]).optional(),
  }),
  top_p: z.number(),
  presence_penalty: z.number(),
  frequency_penalty: z.number(),
  top_logprobs: z.int(),
  temperature: z.number(),
  reasoning: z
    .object({
      effort: z.enum(["none", "low", "medium", "high", "xhigh"]).nullable(),
      summary: z.enum(["concise", "detailed", "auto"]).nullable(),
    })
    .nullable(),
  usage: usage.nullable(),
  max_output_tokens: z.int().nullable(),
  max_tool_calls: z.int().nullable(),
  store: z.boolean(),
  background: z.boolean(),
  service_tier: z.string(),
  metadata: z.record(z.string(), z.string()),
  safety_identifier: z.string().nullable(),
  prompt_cache_key: z.string().nullable(),
  warnings: z.array(z.string()).optional(),
});
export type ResponseResource = z.infer<typeof responseResource>;

const numbered = { sequence_number: z.int() };
const inItem = { ...numbered, item_id: z.string(), output_index: z.int() };
const inPart = { ...inItem, content_index: z.int() };
const lifecycle = <T extends string>(type: T) =>
  z.object({ type: z.literal(type), ...numbered, response: responseResource });
const itemEvent = <T extends string>(type: T) =>
  z.object({ type: z.literal(type), ...numbered, output_index: z.int(), item: outputItem });
const partEvent = <T extends string>(type: T) => z.object({ type: z.literal(type), ...inPart, part: outputPart });
const imageCall = <T extends string>(type: T) => z.object({ type: z.literal(type), ...inItem });
const ofImage = { ...numbered, response_id: z.string(), image_index: z.int() };

export const responseEvent = z.discriminatedUnion("type", [
  lifecycle("response.created"),
  lifecycle("response.queued"),
  lifecycle("response.in_progress"),
  lifecycle("response.completed"),
  lifecycle("response.failed"),
  lifecycle("response.incomplete"),
  itemEvent("response.output_item.added"),
  itemEvent("response.output_item.done"),
  partEvent("response.content_part.added"),
  partEvent("response.content_part.done"),
  z.object({
    type: z.literal("response.output_text.delta"),
    ...inPart,
    delta: z.string(),
    logprobs: z.array(z.never()),
  }),
  z.object({ type: z.literal("response.output_text.done"), ...inPart, text: z.string(), logprobs: z.array(z.never()) }),
  z.object({ type: z.literal("error"), ...numbered, error: errorMember }),
  // opt-in: strict clients fail on types that the specification lacks
  z.object({
    type: z.literal("daybreak:image.progress"),
    ...ofImage,
    step: z.int(),
    steps: z.int(),
    eta_ms: z.number(),
  }),
  z.object({
    type: z.literal("daybreak:image.partial"),
    ...ofImage,
    partial_image_index: z.int(),
    image_url: z.string(),
  }),
  imageCall("response.image_generation_call.in_progress"),
  imageCall("response.image_generation_call.generating"),
  imageCall("response.image_generation_call.completed"),
  imageCall("response.image_generation_call.partial_image").extend({
    partial_image_index: z.int(),
    partial_image_b64: z.string(),
  }),
]);
export type ResponseEvent = z.infer<typeof responseEvent>;

export const deletedResponse = z.object({
  id: z.string(),
  object: z.literal("response.deleted"),
  deleted: z.literal(true),
});

export const inputItemList = z.object({
  object: z.literal("list"),
  data: z.array(z.looseObject({ type: z.string(), id: z.string() })),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
  has_more: z.boolean(),
});

export const compactionResource = z.object({
  id: z.string(),
  object: z.literal("response.compaction"),
  created_at: z.int(),
  output: z.array(z.looseObject({ type: z.string(), id: z.string() })),
  usage,
});
export type CompactionResource = z.infer<typeof compactionResource>;
