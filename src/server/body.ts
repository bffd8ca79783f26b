// Request bodies: bytes, JSON, forms, each within limits that are applied while reading, not after. All requests
// together may hold so many bytes in memory; who comes when they are used up is asked to come again.

import { ApiError } from "./api-error.js";
import type { HttpRequest } from "./http.js";

export const maxBodyBytes = 100 * 1024 * 1024;
/** Of all bodies that are being read or worked on. */
const maxHeldBytes = 512 * 1024 * 1024;
/** The longest that a whole body may take, however steadily it drips. */
const maxBodyMs = 300_000;

let heldBytes = 0;

/**
 * Reads a body and hands it to `use`; its bytes count as held until that is done.
 * Throws ApiError: `payload_too_large`, `overloaded`, `invalid_request` (incomplete, too slow).
 */
export async function withBody<T>(request: HttpRequest, use: (bytes: Buffer) => Promise<T>): Promise<T> {
  const announced = Number(request.header("content-length") ?? 0);
  if (announced > maxBodyBytes) throw tooLarge(`${announced}`);
  let held = 0;
  try {
    const chunks: Uint8Array[] = [];
    const deadline = performance.now() + maxBodyMs;
    try {
      for await (const chunk of request.body) {
        held += chunk.length;
        heldBytes += chunk.length;
        if (held > maxBodyBytes) throw tooLarge(`more than ${maxBodyBytes}`);
        if (heldBytes > maxHeldBytes) {
          throw new ApiError("overloaded", "too_many_bytes", "too many large requests at once: try again later", {
            headers: { "retry-after": "5" },
          });
        }
        if (performance.now() > deadline) {
          const message = `the body took more than ${maxBodyMs / 1000} seconds: send it faster`;
          throw new ApiError("invalid_request", "body_too_slow", message, { status: 408 });
        }
        chunks.push(chunk);
      }
    } catch (cause) {
      if (cause instanceof ApiError) throw cause;
      throw new ApiError("invalid_request", "body_incomplete", "the body ended before it was complete", { cause });
    }
    return await use(chunks.length === 1 ? Buffer.from(chunks[0] as Uint8Array) : Buffer.concat(chunks));
  } finally {
    heldBytes -= held;
  }
}

function tooLarge(got: string): ApiError {
  return new ApiError(
    "payload_too_large",
    "body_too_large",
    `got a body of ${got} bytes, at most ${maxBodyBytes} are allowed`,
  );
}

/** The type of a body, lower case and without parameters; "" if none is stated. */
export function mediaType(request: HttpRequest): string {
  return (request.header("content-type") ?? "").split(";")[0]!.trim().toLowerCase();
}

/** Refuses a body of another type. Throws ApiError with status 415. */
export function unsupportedType(request: HttpRequest, expected: string): ApiError {
  const got = request.header("content-type");
  const message = `got ${got === undefined ? "no content type" : `the content type ${got.slice(0, 80)}`}, expected ${expected}`;
  return new ApiError("invalid_request", "unsupported_content_type", message, { status: 415 });
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A body as JSON. Throws ApiError: 415 for another type, `invalid_request` for what is no JSON object. */
export async function readJson(request: HttpRequest): Promise<unknown> {
  if (mediaType(request) !== "application/json") throw unsupportedType(request, "application/json");
  return withBody(request, async (bytes) => parseJson(bytes));
}

/** A JSON object from UTF-8 text. Throws ApiError `invalid_request`. */
export function parseJson(bytes: Uint8Array): unknown {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch (cause) {
    // Of the parser's own message, which quotes the body, only the position is passed on.
    const position = /position (\d+)/.exec(String(cause))?.[1];
    const where = position === undefined ? "" : ` at character ${position}`;
    const what = bytes.length === 0 ? "got an empty body" : `got a body that is no valid JSON${where}`;
    throw new ApiError("invalid_request", "invalid_json", `${what}, expected a JSON object in UTF-8`, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  const got = value === null ? "null" : Array.isArray(value) ? "an array" : `a ${typeof value}`;
  throw new ApiError("invalid_request", "invalid_json", `got ${got} as the body, expected a JSON object`);
}

/** A form as `multipart/form-data`. Throws ApiError `invalid_request`. */
export async function readForm(request: HttpRequest): Promise<FormData> {
  const headers = { "content-type": request.header("content-type") ?? "" };
  return withBody(request, async (bytes) => {
    try {
      return await new Response(bytes as Uint8Array<ArrayBuffer>, { headers }).formData();
    } catch (cause) {
      const message = "got a form that cannot be read, expected multipart/form-data with its boundary and last line";
      throw new ApiError("invalid_request", "invalid_form", message, { cause });
    }
  });
}
