// The bodies of OpenAI's images routes: what is accepted, what is answered, the events of their streams. Wider than
// OpenAI in one thing: multipart forms carry strings, which are read as the numbers and booleans they spell.

import { z } from "zod";
import { aspectRatioPattern } from "../drawing/aspect-ratio.js";
import { maxServedImages, maxServedPartialImages } from "../drawing/limits.js";
import { guidanceScale, integer, meaningless, optional, outputFormat, seed, side, steps } from "../drawing/schema.js";

/** OpenAI's own; what may be drawn is shorter. */
const maxOpenaiPromptLength = 32_000;
/** OpenAI's own; the model takes fewer. */
const maxOpenaiImages = 16;

/** A number that a form may have sent as text. */
const spelled = <T extends z.ZodType>(schema: T) =>
  z.preprocess(
    (value) => (typeof value === "string" && /^-?\d{1,17}(\.\d{1,17})?$/.test(value) ? Number(value) : value),
    schema,
  );

const boolean = z.preprocess(
  (value) => (value === "true" ? true : value === "false" ? false : value),
  z.boolean("expected true or false"),
);

const size = z.string().regex(/^(auto|\d{1,5}x\d{1,5})$/, 'expected "auto" or WIDTHxHEIGHT, such as 512x512');

const shared = {
  prompt: z.string().regex(/\S/, "expected a text that says what to draw").max(maxOpenaiPromptLength),
  model: optional(z.string()),
  n: optional(spelled(integer(1, maxServedImages))),
  size: optional(size),
  response_format: optional(z.enum(["url", "b64_json"])),
  output_format: optional(outputFormat),
  output_compression: optional(spelled(integer(0, 100))),
  background: optional(z.enum(["auto", "opaque", "transparent"])),
  stream: optional(boolean),
  partial_images: optional(spelled(integer(0, maxServedPartialImages))),
  // OpenAI's own that change nothing here
  ...{ user: meaningless, quality: meaningless, style: meaningless, moderation: meaningless },
  input_fidelity: meaningless,
  // extensions
  width: optional(spelled(side)),
  height: optional(spelled(side)),
  aspect_ratio: optional(z.string().regex(aspectRatioPattern, 'expected "auto" or a shape such as 16:9')),
  steps: optional(spelled(steps)),
  guidance_scale: optional(spelled(guidanceScale)),
  negative_prompt: optional(z.string().max(maxOpenaiPromptLength)),
  seed: optional(spelled(seed)),
};

/** Body of `POST /v1/images/generations`. */
export const imageGenerationBody = z.object(shared);
export type ImageGenerationBody = z.infer<typeof imageGenerationBody>;

const imagesOf = <T extends z.ZodType>(image: T) =>
  z
    .array(image)
    .min(1, "expected at least one image")
    .max(maxOpenaiImages, `expected at most ${maxOpenaiImages} images`);

/** JSON body of `POST /v1/images/edits`. */
export const imageEditBody = z.object({
  ...shared,
  images: imagesOf(z.object({ image_url: z.string() })),
  mask: optional(z.unknown()),
});
export type ImageEditBody = z.infer<typeof imageEditBody>;

/** The same as a form, whose files named `image` or `image[]` were collected. */
export const imageEditForm = imageEditBody.extend({ images: imagesOf(z.object({ file: z.instanceof(Uint8Array) })) });
export type ImageEditForm = z.infer<typeof imageEditForm>;

const imagesUsage = z.object({
  total_tokens: z.int(),
  input_tokens: z.int(),
  output_tokens: z.int(),
  input_tokens_details: z.object({ text_tokens: z.int(), image_tokens: z.int() }),
});

const drawn = {
  background: z.literal("opaque"),
  output_format: z.enum(["png", "jpeg", "webp"]),
  size: z.string(),
  quality: z.literal("high"),
};

export const imagesResponse = z.object({
  created: z.int(),
  data: z.array(z.object({ url: z.string().optional(), b64_json: z.string().optional(), seed: z.int() })),
  ...drawn,
  usage: imagesUsage,
  /** For a person to read; only if there are any. */
  warnings: z.array(z.string()).optional(),
});
export type ImagesResponse = z.infer<typeof imagesResponse>;

const imagesEvent = <T extends string>(type: T) =>
  z.object({ type: z.literal(type), created_at: z.int(), b64_json: z.string(), ...drawn });

const completed = { usage: imagesUsage, warnings: z.array(z.string()).optional() };

export const imagesStreamEvent = z.discriminatedUnion("type", [
  imagesEvent("image_generation.partial_image").extend({ partial_image_index: z.int() }),
  imagesEvent("image_edit.partial_image").extend({ partial_image_index: z.int() }),
  imagesEvent("image_generation.completed").extend(completed),
  imagesEvent("image_edit.completed").extend(completed),
]);
export type ImagesStreamEvent = z.infer<typeof imagesStreamEvent>;
