// Errors as clients see them: a status, a type, a code, the member that offends, a sentence. Knows nothing of what is
// served.

import { z } from "zod";
import { jsonHeaders } from "./answers.js";
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

/** {@link errorPayload} as a schema. */
export const errorMember = z.object({
  message: z.string(),
  type: z.string(),
  param: z.string().nullable(),
  code: z.string(),
});

/** The body of every refusal, on every route. */
export const errorBody = z.object({ error: errorMember });

/** The error member of every body that reports one. */
export function errorPayload({ message, type, param, code }: ApiError) {
  return { message, type, param, code };
}

/** An error as a whole answer. */
export function errorResponse(error: ApiError): HttpResponse {
  return {
    status: error.status,
    headers: { ...jsonHeaders, ...error.headers },
    body: JSON.stringify({ error: errorPayload(error) }),
  };
}
