// References as files, and as pixels. Before a job exists files are read and judged by their headers, which takes
// milliseconds; decoding can take seconds and belongs to the job, in its caller's turn. Types are told by the bytes.
// Pictures leave here ready for the engine: at most the area that the model uses.

import type { RgbImage, Size } from "../../engine/request.js";
import { DaybreakError } from "../../errors.js";
import { anyReferenceSize } from "../../media/references.js";
import { ApiError } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
import type { DrawingContext } from "./context.js";
import { toApiError } from "./errors.js";
import { maxServedReferencePixels } from "./limits.js";
import { type ImageSource, readSource } from "./references.js";

/** A reference that was read but not decoded. */
export type ReferenceFile = {
  bytes: Uint8Array;
  /** In which the model gets it. */
  size: Size;
  /** The member of the request that named it, for errors. */
  param: string;
};

/**
 * Reads images in order and judges them by their headers. Throws ApiError with the param of the image at fault:
 * `reference_not_allowed`, `media_not_found`, `reference_too_many_pixels`, and what decoding refuses without pixels.
 */
export async function readReferences(
  context: DrawingContext,
  sources: readonly ImageSource[],
  caller: Caller,
): Promise<ReferenceFile[]> {
  const files: ReferenceFile[] = [];
  const { limits } = context.model.bounds.references;
  let pixels = 0;
  for (const source of sources) {
    const { param } = source;
    const file = await atFault(param, async () => {
      const bytes = await readSource(context, source, caller);
      const { stored, used } = anyReferenceSize(bytes, limits);
      pixels += stored.width * stored.height;
      return { bytes, size: used, param };
    });
    if (pixels > maxServedReferencePixels) {
      const message = `got reference images of ${pixels} pixels together, expected at most ${maxServedReferencePixels}: scale them down`;
      throw new ApiError("invalid_request", "reference_too_many_pixels", message, { param });
    }
    files.push(file);
  }
  return files;
}

/**
 * The pixels of files that were read. Breaks off when `signal` is aborted.
 * Throws ApiError with the param of the image at fault: `reference_damaged`, `reference_truncated` and the like;
 * DaybreakError `request.cancelled`.
 */
export async function decodeReferences(
  context: DrawingContext,
  files: readonly ReferenceFile[],
  signal: AbortSignal,
): Promise<RgbImage[]> {
  const { limits } = context.model.bounds.references;
  const images: RgbImage[] = [];
  for (const { bytes, param } of files) {
    images.push(await atFault(param, () => context.workers.decodeReference(bytes, limits, signal)));
  }
  return images;
}

/** Does something with one image of a request; what is wrong with it is the fault of the member that named it. */
export async function atFault<T>(param: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof DaybreakError) || error.code === "request.cancelled") throw error;
    const { type, code, message } = toApiError(error);
    throw new ApiError(type, code, message, { param, cause: error });
  }
}
