// What drawing can fail with, as clients see it: the engine's and the store's errors in the words of the API. What is
// not foreseen becomes a bare "internal error": no path, no stack and no message of a library leaves the server.

import { DaybreakError } from "../../errors.js";
import { ApiError } from "../http/api-error.js";

/** Codes of the engine that are about a member of the request, and the member where nothing nearer is known. */
const requestParams: Readonly<Record<string, string>> = {
  "request.steps_invalid": "provider_options.image.steps",
  "request.guidance_invalid": "provider_options.image.guidance_scale",
  "request.num_images_invalid": "provider_options.image.num_images",
  "request.seed_invalid": "seed",
};

/** What clients hear of a store that takes nothing. Its own messages are for whoever runs the server. */
const storeTexts: Readonly<Record<string, string>> = {
  "media.storage_full": "the server has no room left to store the result",
  "media.unwritable": "the server cannot write to its media store: nothing was stored or deleted",
  "media.folder_in_use": "the server has lost its media store to another server: nothing was stored or deleted",
};

/**
 * Any thrown value as an ApiError. What the engine refuses is the client's mistake (400), and so is a picture that its
 * device has no room for. What it computed wrongly or failed to compute is `model_error`, which clients must not repeat
 * by themselves. What does not fit on the disk is 507; an engine that cannot be started is 503.
 * @param sizeParam the member of the request that says the picture's size
 */
export function toApiError(error: unknown, sizeParam = "provider_options.image.width"): ApiError {
  if (error instanceof ApiError) return error;
  if (!(error instanceof DaybreakError)) {
    return new ApiError(
      "server_error",
      "internal_error",
      "the server failed in a way that nobody foresaw; see its log",
      {
        cause: error,
      },
    );
  }
  if (error.code === "engine.unavailable") return unavailable(error);
  const { code, message } = error;
  const [room] = code.split(".");
  const apiCode = code.replaceAll(".", "_");
  if (code === "request.cancelled") {
    return new ApiError("overloaded", "cancelled", "the request was cancelled before it was done", { cause: error });
  }
  if (room === "request" || room === "reference" || code === "output.format_unsupported") {
    const param = code === "request.size_invalid" ? sizeParam : (requestParams[code] ?? "input");
    return new ApiError("invalid_request", apiCode, message, { param, cause: error });
  }
  if (code === "device.memory_budget_exceeded" || code === "device.limit_exceeded") {
    return new ApiError("invalid_request", apiCode, message, { param: sizeParam, cause: error });
  }
  const unstored = code === "media.too_large" ? message : storeTexts[code];
  if (unstored !== undefined) {
    return new ApiError("insufficient_storage", apiCode, unstored, { headers: noRetry, cause: error });
  }
  if (code === "media.damaged") {
    const text = "the stored file is damaged: the server's disk holds other bytes than were stored; make it again";
    return new ApiError("server_error", apiCode, text, { headers: noRetry, cause: error });
  }
  if (room === "marks") {
    const text = "the server could not mark the file as made by a machine, and gives no other; see its log";
    return new ApiError("server_error", apiCode, text, { headers: noRetry, cause: error });
  }
  if (room === "numerics") return new ApiError("model_error", apiCode, message, { headers: noRetry, cause: error });
  if (code === "device.out_of_memory") {
    const text = "the GPU has no memory left for this: ask for a smaller picture, or try again later";
    return new ApiError("model_error", apiCode, text, { headers: noRetry, cause: error });
  }
  if (room === "device" || room === "engine") {
    const text = "the engine failed while it worked on this request; it is being restarted where that helps";
    return new ApiError("model_error", apiCode, text, { headers: noRetry, cause: error });
  }
  return new ApiError("server_error", apiCode, "the server could not do this; see its log", { cause: error });
}

/** Whatever keeps the engine from starting is no mistake of a request, also where a request may fail with the same code. */
function unavailable(error: DaybreakError): ApiError {
  const { code } = error.cause instanceof DaybreakError ? error.cause : error;
  const text = `the engine cannot be started (${code}); that is tried again and again, see /readyz and the server's log`;
  return new ApiError("overloaded", code.replaceAll(".", "_"), text, { cause: error });
}

/** Official clients repeat a 5xx twice; a failed drawing would be drawn three times. */
const noRetry = { "x-should-retry": "false" };

/** What every API refuses a wish for transparency with. */
export function unsupportedBackground(param: string): ApiError {
  const message = "got a transparent background, expected opaque or auto: this model draws opaque pictures";
  return new ApiError("invalid_request", "unsupported_background", message, { param });
}

/** What every API refuses a mask with. */
export function unsupportedMask(param: string): ApiError {
  const message = "got a mask, which this model cannot use: say in the prompt what to change";
  return new ApiError("invalid_request", "unsupported_mask", message, { param });
}
