// Request bodies: bytes, JSON, forms, each within limits that are applied while reading, not after. All requests
// together may hold so many bytes in memory; who comes when they are used up is asked to come again.

import { ApiError } from "./api-error.js";
import type { HttpRequest } from "./messages.js";

export const maxBodyBytes = 100 * 1024 * 1024;
/** Of all bodies that are being read or worked on. */
const maxHeldBytes = 512 * 1024 * 1024;
/** The longest that a whole body may take, however steadily it drips. */
const maxBody_ms = 300_000;
/** Members and elements of a JSON body: a hundred MiB of empty objects would take gigabytes, and minutes to judge. */
const maxJsonValues = 20_000;
/** The parser's time grows with the number of parts. */
const maxFormParts = 64;

let heldBytes = 0;

/** Counts bytes as held. Throws ApiError `overloaded` when that makes too many; then none of these count. */
function hold(bytes: number): void {
  if (heldBytes + bytes > maxHeldBytes) {
    throw new ApiError("overloaded", "too_many_bytes", "too many large requests at once: try again later", {
      headers: { "retry-after": "5" },
    });
  }
  heldBytes += bytes;
}

/** Counts a message's bytes as held until `work` is done. Throws ApiError `overloaded`. */
export async function whileHeld<T>(bytes: number, work: () => Promise<T>): Promise<T> {
  hold(bytes);
  try {
    return await work();
  } finally {
    heldBytes -= bytes;
  }
}

/** Makes a body count as held for longer: until a promise that never rejects is fulfilled. */
export type KeepHeld = (until: Promise<unknown>) => void;

/**
 * Reads a body and hands it to `use`; its bytes count as held until that is done, or as long as `use` says.
 * Throws ApiError: `payload_too_large`, `overloaded`, `invalid_request` (incomplete, too slow).
 */
export async function withBody<T>(
  request: HttpRequest,
  use: (bytes: Buffer, keepHeld: KeepHeld) => Promise<T>,
): Promise<T> {
  const announced = Number(request.header("content-length") ?? 0);
  if (announced > maxBodyBytes) throw tooLarge(`${announced}`);
  let held = 0;
  let until: Promise<unknown> | undefined;
  try {
    const chunks: Uint8Array[] = [];
    const deadline = performance.now() + maxBody_ms;
    try {
      for await (const chunk of request.body) {
        hold(chunk.length);
        held += chunk.length;
        if (held > maxBodyBytes) throw tooLarge(`more than ${maxBodyBytes}`);
        if (performance.now() > deadline) {
          const message = `the body took more than ${maxBody_ms / 1000} seconds: send it faster`;
          throw new ApiError("invalid_request", "body_too_slow", message, { status: 408 });
        }
        chunks.push(chunk);
      }
    } catch (cause) {
      if (cause instanceof ApiError) throw cause;
      throw new ApiError("invalid_request", "body_incomplete", "the body ended before it was complete", { cause });
    }
    const bytes = chunks.length === 1 ? Buffer.from(chunks[0] as Uint8Array) : Buffer.concat(chunks);
    return await use(bytes, (promise) => {
      until = promise;
    });
  } finally {
    void Promise.resolve(until).then(() => {
      heldBytes -= held;
    });
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

/**
 * Hands a body as JSON to `use`; it counts as held until that is done.
 * Throws ApiError: 415 for another type, `invalid_request` for what is no JSON object.
 */
export async function withJson<T>(
  request: HttpRequest,
  use: (body: unknown, keepHeld: KeepHeld) => Promise<T>,
): Promise<T> {
  if (mediaType(request) !== "application/json") throw unsupportedType(request, "application/json");
  return withBody(request, async (bytes, keepHeld) => use(parseJson(bytes), keepHeld));
}

/** A JSON object from UTF-8 text. Throws ApiError `invalid_request`. */
export function parseJson(bytes: Buffer): unknown {
  let value: unknown;
  if (hasTooManyValues(bytes)) {
    const message = `got a body of more than ${maxJsonValues} members and elements: send fewer`;
    throw new ApiError("invalid_request", "too_many_values", message);
  }
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

const [quote, backslash, comma, bracket, brace] = Buffer.from('"\\,[{');

/** Counts what separates or opens values outside of strings, without making anything of it. */
function hasTooManyValues(json: Buffer): boolean {
  let count = 0;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (byte === quote) {
      i = endOfString(json, i);
    } else if (byte === comma || byte === bracket || byte === brace) {
      if (++count > maxJsonValues) return true;
    }
  }
  return false;
}

/** The place of the quote that ends the string which begins at `begin`. */
function endOfString(json: Buffer, begin: number): number {
  for (let end = begin; ; ) {
    end = json.indexOf('"', end + 1);
    if (end < 0) return json.length;
    let escapes = 0;
    while (json[end - 1 - escapes] === backslash) escapes++;
    if (escapes % 2 === 0) return end;
  }
}

/** Hands a form as `multipart/form-data` to `use`; it counts as held until that is done. Throws ApiError. */
export async function withForm<T>(
  request: HttpRequest,
  use: (form: FormData, keepHeld: KeepHeld) => Promise<T>,
): Promise<T> {
  const type = request.header("content-type") ?? "";
  return withBody(request, async (bytes, keepHeld) => use(await parseForm(bytes, type), keepHeld));
}

async function parseForm(bytes: Buffer, type: string): Promise<FormData> {
  const boundary = /boundary="?([^";]+)/i.exec(type)?.[1];
  let parts = -1; // the last line is no part
  if (boundary !== undefined) {
    for (let at = bytes.indexOf(`--${boundary}`); at >= 0 && parts <= maxFormParts; parts++) {
      at = bytes.indexOf(`--${boundary}`, at + boundary.length + 2);
    }
  }
  if (parts > maxFormParts) {
    const message = `got a form of more than ${maxFormParts} parts: send fewer`;
    throw new ApiError("invalid_request", "invalid_form", message);
  }
  try {
    return await new Response(bytes as Uint8Array<ArrayBuffer>, { headers: { "content-type": type } }).formData();
  } catch (cause) {
    const message = "got a form that cannot be read, expected multipart/form-data with its boundary and last line";
    throw new ApiError("invalid_request", "invalid_form", message, { cause });
  }
}
