// Finished pictures as items of a response, in the three profiles of the contract. Knows shapes, not how they are sent.

import type { Asset } from "../../media/store.js";
import type { DrawingTimings } from "../drawing/draw.js";
import type { ImageFile, VideoFile } from "../drawing/files.js";
import type { Drawing } from "../drawing/judge.js";
import { newId } from "../http/ids.js";
import type { Presentation } from "./request.js";
import type { OutputItem, OutputPart, OutputTextPart, Usage } from "./response-schema.js";

/** A picture or a video that is finished: its facts, and where its bytes are. */
export type Result = (
  | ({ type: "image" } & Omit<ImageFile, "bytes" | "marks">)
  | ({ type: "video" } & Omit<VideoFile, "marks">)
) & {
  /** Where it can be fetched, with `asset`, or its bytes in base64. */
  place: { url: string; asset: Asset } | { base64: string };
};

/**
 * All items of a finished response.
 * @param callIds the ids under which the items of profile openai began
 */
export function outputItems(
  results: readonly Result[],
  presentation: Presentation,
  callIds: readonly string[],
): OutputItem[] {
  if (presentation.profile === "openai") {
    return callIds.map((id, i) => {
      const place = results[i]?.place;
      return imageCall(id, "completed", place && "base64" in place ? place.base64 : null);
    });
  }
  const content =
    presentation.profile === "max"
      ? results.map((result) => maxPart(result, presentation))
      : [textPart(results), ...results.map((result) => messagePart(result, presentation))];
  return [{ type: "message", id: newId("msg"), status: "completed", role: "assistant", content }];
}

export function imageCall(
  id: string,
  status: "in_progress" | "completed",
  result: string | null,
): OutputItem & { type: "image_generation_call" } {
  return { type: "image_generation_call", id, status, result };
}

/** One ASCII line that names what was made; results that have a URL follow as links, each cited. */
function textPart(results: readonly Result[]): OutputTextPart {
  const [first] = results as [Result, ...Result[]];
  const what =
    first.type === "video"
      ? `Made a video of ${first.frames} frames, ${first.width}x${first.height} pixels, ${first.framesPerSecond} a second.`
      : `Made ${results.length === 1 ? "an image" : `${results.length} images`} of ${first.width}x${first.height} pixels.`;
  let text = what;
  const annotations: OutputTextPart["annotations"] = [];
  for (const [i, { type, place }] of results.entries()) {
    if (!("url" in place)) continue;
    const title = `${type === "video" ? "Video" : "Image"} ${i + 1}`;
    const link = `[${title}](${place.url})`;
    text += " ";
    annotations.push({
      type: "url_citation",
      url: place.url,
      title,
      start_index: text.length,
      end_index: text.length + link.length,
    });
    text += link;
  }
  return { type: "output_text", text, annotations, logprobs: [] };
}

function messagePart(result: Result, { format }: Presentation): OutputPart {
  const { width, height, seed, place } = result;
  const source = publicSource(result, format);
  const asset = {
    asset_id: "asset" in place ? place.asset.id : null,
    expires_at: "asset" in place ? expiry(place.asset) : null,
  };
  if (result.type === "video") {
    return {
      type: "input_video",
      // The schema demands a string here.
      video_url: source.url ?? "",
      ...(source.data !== undefined && { video_data: source.data }),
      format: "mp4",
      width,
      height,
      frames_per_second: result.framesPerSecond,
      num_frames: result.frames,
      method: "latent_walk",
      seed,
      ...asset,
    };
  }
  return {
    type: "input_image",
    image_url: source.url ?? null,
    ...(source.data !== undefined && { image_data: source.data }),
    detail: "auto",
    format: result.format,
    width,
    height,
    seed,
    ...asset,
  };
}

function maxPart(result: Result, { format }: Presentation): OutputPart {
  const { url, data } = publicSource(result, format);
  if (result.type === "image") {
    return {
      type: "output_image",
      ...(url !== undefined ? { image_url: url } : { image_data: data }),
      format: result.format,
    };
  }
  return {
    type: "output_video",
    ...(url !== undefined ? { video_url: url } : { video_data: data }),
    format: "mp4",
    frames_per_second: result.framesPerSecond,
    num_frames: result.frames,
  };
}

/** Exactly one of a URL, which may be a data: URI, and bare base64. */
function publicSource(result: Result, format: Presentation["format"]): { url?: string; data?: string } {
  const { place } = result;
  if ("url" in place) return { url: place.url };
  if (format === "b64_json") return { data: place.base64 };
  return { url: dataUri(result.type === "video" ? "video/mp4" : `image/${result.format}`, place.base64) };
}

export function dataUri(mime: string, base64: string): string {
  return `data:${mime};base64,${base64}`;
}

function expiry(asset: Asset): number | null {
  return asset.expires_ms === null ? null : Math.floor(asset.expires_ms / 1000);
}

/** Tokens in and out: the prompt's, and the latents' of all pictures. */
export function usage(drawing: Drawing, timings: DrawingTimings): Usage {
  const { request, outputTokens: output_tokens, seeds } = drawing;
  const { width, height, steps, numImages } = request;
  const input_tokens = request.prompt.length;
  return {
    input_tokens,
    output_tokens,
    total_tokens: input_tokens + output_tokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens_details: { reasoning_tokens: 0 },
    image_generation_details: {
      width,
      height,
      megapixels: (width * height) / 1e6,
      steps,
      image_count: numImages,
      seeds,
      timings_ms: {
        queue: round(timings.queue),
        encode_prompt: round(timings.encode_prompt),
        denoise: round(timings.denoise),
        decode: round(timings.decode),
        encode_file: round(timings.encode_file),
      },
    },
  };
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
