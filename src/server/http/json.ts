// Bodies in JSON: their values are counted before they are parsed, and a schema reads what was parsed.

import type { z } from "zod";
import { ApiError } from "./api-error.js";
import { type HeldBytes, type KeepHeld, mediaType, unsupportedType, withBody } from "./body.js";
import type { HttpRequest, HttpResponse } from "./messages.js";
import type { Call, Route } from "./routes.js";
import { readAs } from "./schema.js";

/** Members and elements of a body: a hundred MiB of empty objects would take gigabytes, and minutes to judge. */
const maxJsonValues = 20_000;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * The members of a route that takes JSON: what it says of its body, and how it is called with one. The body counts as
 * held until `handle` is done, or for as long as that says.
 */
export function takesJson<S extends z.ZodType>(
  held: HeldBytes,
  schema: S,
  handle: (body: z.infer<S>, call: Call, keepHeld: KeepHeld) => Promise<HttpResponse>,
): Pick<Route, "body" | "handle"> {
  return {
    body: { "application/json": schema },
    handle: (call) => withJson(call.request, held, schema, (body, keepHeld) => handle(body, call, keepHeld)),
  };
}

/**
 * Hands a body in JSON to `use`, as its schema reads it; it counts as held until that is done, or for as long as `use`
 * says.
 * Throws ApiError: 415 for another type, `invalid_request` for what is no JSON object or not as the schema wants it.
 */
export async function withJson<S extends z.ZodType, T>(
  request: HttpRequest,
  held: HeldBytes,
  schema: S,
  use: (body: z.infer<S>, keepHeld: KeepHeld) => Promise<T>,
): Promise<T> {
  if (mediaType(request) !== "application/json") throw unsupportedType(request, "application/json");
  return withBody(request, held, (bytes) => readAs(schema, parseJson(bytes)), use);
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
    // The parser's own message quotes the body: only its position is passed on.
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
