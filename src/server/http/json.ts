// Bodies in JSON: what would take long is taken out before they are parsed, and a schema reads what was parsed.

import type { z } from "zod";
import { ApiError } from "./api-error.js";
import {
  type BodyBytes,
  type HeldBytes,
  type KeepHeld,
  mediaType,
  unsupportedType,
  wholeBody,
  withBody,
} from "./body.js";
import { takeOutLongTexts } from "./long-texts.js";
import type { HttpRequest, HttpResponse } from "./messages.js";
import type { Call, Route } from "./routes.js";
import { readAs, unknownMembers } from "./schema.js";

/**
 * The members of a route that takes JSON: what it says of its body, and how it is called with one. The body counts as
 * held until `handle` is done, or for as long as that says.
 */
export function takesJson<S extends z.ZodType>(
  held: HeldBytes,
  schema: S,
  handle: (body: z.infer<S>, call: Call, keepHeld: KeepHeld, unknown: string[]) => Promise<HttpResponse>,
): Pick<Route, "body" | "handle"> {
  return {
    body: { "application/json": schema },
    handle: (call) =>
      withJson(call.request, held, schema, (body, keepHeld, unknown) => handle(body, call, keepHeld, unknown)),
  };
}

/**
 * Hands a body in JSON to `use`, as its schema reads it, with the paths of the members that the schema does not know; it
 * counts as held until that is done, or for as long as `use` says.
 * Throws ApiError: 415 for another type, `invalid_request` for what is no JSON object or not as the schema wants it.
 */
export async function withJson<S extends z.ZodType, T>(
  request: HttpRequest,
  held: HeldBytes,
  schema: S,
  use: (body: z.infer<S>, keepHeld: KeepHeld, unknown: string[]) => Promise<T>,
): Promise<T> {
  if (mediaType(request) !== "application/json") throw unsupportedType(request, "application/json");
  const parse = async (bytes: BodyBytes) => {
    const value = await parseJson(await wholeBody(bytes));
    return { body: readAs(schema, value), unknown: unknownMembers(schema, value) };
  };
  return withBody(request, held, parse, ({ body, unknown }, keepHeld) => use(body, keepHeld, unknown));
}

/** A JSON object from UTF-8 text; of a long one others get their turn meanwhile. Throws ApiError `invalid_request`. */
export async function parseJson(bytes: Buffer): Promise<unknown> {
  let value: unknown;
  let hasLongTexts = false;
  try {
    const { text, longTexts } = await takeOutLongTexts(bytes);
    hasLongTexts = longTexts.size > 0;
    const putBack = (_: string, found: unknown) =>
      typeof found === "string" ? (longTexts.get(found) ?? found) : found;
    value = JSON.parse(text, hasLongTexts ? putBack : undefined);
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    // The parser's own message quotes the body: only its position is passed on, where it is the body's.
    const position = hasLongTexts ? undefined : /position (\d+)/.exec(String(cause))?.[1];
    const where = position === undefined ? "" : ` at character ${position}`;
    const what = bytes.length === 0 ? "got an empty body" : `got a body that is no valid JSON${where}`;
    throw new ApiError("invalid_request", "invalid_json", `${what}, expected a JSON object in UTF-8`, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  const got = value === null ? "null" : Array.isArray(value) ? "an array" : `a ${typeof value}`;
  throw new ApiError("invalid_request", "invalid_json", `got ${got} as the body, expected a JSON object`);
}
