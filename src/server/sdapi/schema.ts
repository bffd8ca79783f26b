// The bodies of AUTOMATIC1111's API, as far as its clients need it: what they send to have a picture drawn, what they
// read of the answer. Wider than this server's other APIs where those clients have one setting for every model: steps
// and sides are fitted to the served one, and the answer says so.

import { z } from "zod";
import { maxServedImages, maxServedReferences } from "../drawing/limits.js";
import { guidanceScale, integer, meaningless, optional, seed } from "../drawing/schema.js";

/** What is fitted to the model may not be absurd either. */
const maxAskedSide = 8192;
const maxAskedSteps = 1000;

const text = optional(z.string());

const asked = {
  prompt: z.string().regex(/\S/, "expected a text that says what to draw"),
  negative_prompt: text,
  width: optional(integer(1, maxAskedSide)),
  height: optional(integer(1, maxAskedSide)),
  steps: optional(integer(1, maxAskedSteps)),
  cfg_scale: optional(guidanceScale),
  seed: optional(seed),
  batch_size: optional(integer(1, maxServedImages)),
  n_iter: optional(integer(1, maxServedImages)),
  sampler_name: text,
  sampler_index: text,
  scheduler: text,
  denoising_strength: optional(z.number()),
  mask: text,
  send_images: optional(z.boolean()),
  override_settings: optional(z.object({ sd_model_checkpoint: text })),
  // Where files are kept and what comes after a second pass that is not asked for; two of SillyTavern's own.
  ...{ save_images: meaningless, do_not_save_grid: meaningless, do_not_save_samples: meaningless },
  ...{ override_settings_restore_afterwards: meaningless, url: meaningless, auth: meaningless },
  ...{ hr_upscaler: meaningless, hr_scale: meaningless, hr_second_pass_steps: meaningless },
};

/** Body of `POST /sdapi/v1/txt2img`. */
export const txt2imgBody = z.object(asked);
export type Txt2imgBody = z.infer<typeof txt2imgBody>;

/** Body of `POST /sdapi/v1/img2img`: pictures as bare base64 or `data:` URIs. */
export const img2imgBody = z.object({
  ...asked,
  init_images: z
    .array(z.string())
    .min(1, "expected at least one image")
    .max(maxServedReferences, `expected at most ${maxServedReferences} images`),
});
export type Img2imgBody = z.infer<typeof img2imgBody>;

/** `info` is an object in JSON, as a string. */
export const sdImages = z.object({
  images: z.array(z.string()),
  parameters: z.object({
    prompt: z.string(),
    negative_prompt: z.string(),
    width: z.int(),
    height: z.int(),
    steps: z.int(),
    cfg_scale: z.number(),
    seed: z.int(),
    batch_size: z.int(),
    n_iter: z.literal(1),
    sampler_name: z.string(),
  }),
  info: z.string(),
  /** For a person to read; only if there are any. */
  warnings: z.array(z.string()).optional(),
});
export type SdImages = z.infer<typeof sdImages>;

export const sdProgress = z.object({
  progress: z.number(),
  eta_relative: z.number(),
  state: z.object({
    skipped: z.literal(false),
    interrupted: z.literal(false),
    job: z.string(),
    job_count: z.int(),
    job_timestamp: z.string(),
    job_no: z.int(),
    sampling_step: z.int(),
    sampling_steps: z.int(),
  }),
  current_image: z.null(),
  textinfo: z.null(),
});
export type SdProgress = z.infer<typeof sdProgress>;

/** What can be set: nothing but the model, and that only to the one that is served. */
export const sdOptionsBody = z.object({ sd_model_checkpoint: text, samples_format: meaningless });
export const sdOptions = z.object({ sd_model_checkpoint: z.string(), samples_format: z.literal("png") });
export const sdOptionsSet = z.object({ warnings: z.array(z.string()).optional() });

export const sdModels = z.array(
  z.object({
    title: z.string(),
    model_name: z.string(),
    hash: z.null(),
    sha256: z.null(),
    filename: z.string(),
    config: z.null(),
  }),
);

export const sdSamplers = z.array(
  z.object({ name: z.string(), aliases: z.array(z.string()), options: z.record(z.string(), z.string()) }),
);
