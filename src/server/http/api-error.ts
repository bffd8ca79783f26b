// Errors as clients see them: a status, a type, a code, the member that offends, a sentence. Owns the translation of
// the program's own errors and of the schemas' complaints. Whatever is not foreseen becomes a bare "internal error":
// no path, no stack and no message of a library leaves the server.

import type { z } from "zod";
import { DaybreakError } from "../../errors.js";
import type { HttpResponse } from "./messages.js";

/** Error types and the status each goes with; other 4xx are of type `invalid_request`. */
const statuses = {
  invalid_request: 400,
  authentication_error: 401,
  permission_error: 403,
  not_found: 404,
  conflict: 409,
  payload_too_large: 413,
  too_many_requests: 429,
  server_error: 500,
  model_error: 500,
  overloaded: 503,
  insufficient_storage: 507,
} as const;

export type ApiErrorType = keyof typeof statuses;

export type ApiErrorOptions = {
  /** Path of the offending member, such as `provider_options.image.width`. */
  param?: string | null;
  /** Instead of the type's own, for 405, 415, 416 and the like. */
  status?: number;
  headers?: Record<string, string>;
  cause?: unknown;
};

/** What a handler throws to refuse a request. The message says what was got, what is allowed. */
export class ApiError extends Error {
  readonly type: ApiErrorType;
  readonly code: string;
  readonly status: number;
  readonly param: string | null;
  readonly headers: Record<string, string>;

  constructor(type: ApiErrorType, code: string, message: string, options: ApiErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.name = "ApiError";
    this.type = type;
    this.code = code;
    this.status = options.status ?? statuses[type];
    this.param = options.param ?? null;
    this.headers = options.headers ?? {};
  }
}

/** The error member of every body that reports one. */
export function errorPayload({ message, type, param, code }: ApiError) {
  return { message, type, param, code };
}

/** An error as a whole answer. */
export function errorResponse(error: ApiError): HttpResponse {
  return {
    status: error.status,
    headers: { "content-type": "application/json; charset=utf-8", ...error.headers },
    body: JSON.stringify({ error: errorPayload(error) }),
  };
}

/** Codes of the engine that are about a member of the request, and the member where nothing nearer is known. */
const requestParams: Readonly<Record<string, string>> = {
  "request.size_invalid": "provider_options.image.width",
  "request.steps_invalid": "provider_options.image.steps",
  "request.guidance_invalid": "provider_options.image.guidance_scale",
  "request.num_images_invalid": "provider_options.image.num_images",
  "request.seed_invalid": "seed",
};

/**
 * Any thrown value as an ApiError. What the engine refuses is the client's mistake (400), a picture that its device has no
 * room for as well; what it computed wrongly or failed to compute is `model_error`, which clients must not repeat by
 * themselves; what does not fit on the disk is 507.
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
  const { code, message } = error;
  const [room] = code.split(".");
  const apiCode = code.replaceAll(".", "_");
  if (code === "request.cancelled") {
    return new ApiError("overloaded", "cancelled", "the request was cancelled before it was done", { cause: error });
  }
  if (room === "request" || room === "reference" || code === "output.format_unsupported") {
    const param = requestParams[code] ?? "input";
    return new ApiError("invalid_request", apiCode, message, { param, cause: error });
  }
  if (code === "device.memory_budget_exceeded" || code === "device.limit_exceeded") {
    return new ApiError("invalid_request", apiCode, message, { param: sizeParam, cause: error });
  }
  if (code === "media.too_large" || code === "media.storage_full" || code === "media.unwritable") {
    const text = code === "media.too_large" ? message : "the server has no room left to store the result";
    return new ApiError("insufficient_storage", apiCode, text, { headers: noRetry, cause: error });
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

/** Official clients repeat a 5xx twice; a failed drawing would be drawn three times. */
const noRetry = { "x-should-retry": "false" };

/** The callers choose some names themselves, and long ones. */
const maxParamLength = 200;

/** The first complaint of a schema, with the path of the member it is about. */
export function schemaError(error: z.core.$ZodError, body: unknown): ApiError {
  const issue = nearest(error.issues[0] as z.core.$ZodIssue);
  let { path } = issue;
  if (issue.code === "unrecognized_keys") path = [...path, issue.keys[0] as string];
  const param = path
    .map((key, i) => (typeof key === "number" ? `[${key}]` : `${i > 0 ? "." : ""}${String(key)}`))
    .join("")
    .slice(0, maxParamLength);
  const got = describe(
    path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | null)?.[key], body),
  );
  const message =
    issue.code === "unrecognized_keys"
      ? `${param} is not known here: leave it out`
      : `${param || "the body"} got ${got}: ${lowerFirst(issue.message)}`;
  return new ApiError("invalid_request", "invalid_value", message, { param: param || null });
}

/** Of a union's complaints the one that came furthest: the caller most likely meant that member. */
function nearest(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code === "invalid_key" && issue.issues[0]) return { ...issue, message: issue.issues[0].message };
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return issue;
  const candidates = issue.errors.flatMap((issues) => issues.slice(0, 1)).map(nearest);
  const depth = (candidate: z.core.$ZodIssue) => candidate.path.length;
  const best = candidates.reduce((a, b) => (depth(b) > depth(a) ? b : a));
  if (depth(best) > 0) return { ...best, path: [...issue.path, ...best.path] };
  return { ...issue, message: candidates.map(({ message }) => lowerFirst(message)).join(", or ") };
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** A value in few words: enough to recognise it, never enough to be a burden. */
function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null || typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value === "string") {
    return value.length <= 40 ? JSON.stringify(value) : `a string of ${value.length} characters`;
  }
  return Array.isArray(value) ? `an array of ${value.length}` : "an object";
}
