// The answers about the server itself and its files: models, health, version, deletions.

import { z } from "zod";

export const model = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  capabilities: z.object({
    input: z.array(z.enum(["text", "image"])),
    output: z.array(z.enum(["image", "video"])),
    guidance: z.boolean(),
    video_method: z.literal("latent_walk"),
  }),
  defaults: z.object({
    width: z.int(),
    height: z.int(),
    steps: z.int(),
    guidance_scale: z.number(),
    output_format: z.string(),
    response_format: z.string(),
  }),
  /** Of the weights, 32 hexadecimal digits; null until all of them have been read. */
  fingerprint: z.string().nullable(),
  limits: z.object({
    min_side: z.int(),
    max_side: z.int(),
    side_multiple: z.int(),
    max_area: z.int(),
    max_steps: z.int(),
    max_images: z.int(),
    max_references: z.int(),
    max_prompt_tokens: z.int(),
    max_frames: z.int(),
    max_frames_per_second: z.int(),
  }),
});
export type Model = z.infer<typeof model>;

export const modelList = z.object({ object: z.literal("list"), data: z.array(model) });

export const health = z.object({ status: z.literal("ok") });

export const readiness = z.object({ status: z.literal("ready"), model: z.string(), adapter: z.string() });

export const version = z.object({ version: z.string(), model: z.string(), adapter: z.string() });

export const deletedAsset = z.object({
  id: z.string(),
  object: z.enum(["image.deleted", "video.deleted"]),
  deleted: z.literal(true),
});
