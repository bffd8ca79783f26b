// What a caller sent, read by a schema; what the schema complains of, as one error about one member.

import type { z } from "zod";
import { ApiError } from "./api-error.js";

/** A value as its schema reads it. Throws ApiError `invalid_value`, about one member that is wrong. */
export function readAs<S extends z.ZodType>(schema: S, value: unknown): z.infer<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw schemaError(parsed.error, value);
}

/** The callers choose some names themselves, and long ones. */
const maxParamLength = 200;

/** The first complaint of a schema, with the path of the member it is about. */
function schemaError(error: z.core.$ZodError, body: unknown): ApiError {
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

/** The complaint of a union that came furthest: the caller most likely meant that member. */
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
