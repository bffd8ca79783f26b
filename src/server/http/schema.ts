// What a caller sent, read by a schema; what the schema complains of, as one error about one member.

import { z } from "zod";
import { ApiError } from "./api-error.js";

/** A value as its schema reads it. Throws ApiError `invalid_value`, about one member that is wrong. */
export function readAs<S extends z.ZodType>(schema: S, value: unknown): z.infer<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw schemaError(parsed.error, value);
}

/**
 * Paths of the members that a schema dropped from a value it has read, because it does not know them; those that ask for
 * nothing (null, false, 0, what is empty) do not count. Looks into objects and lists of one kind; what may be of several
 * kinds, told apart by no name, is left alone.
 */
export function unknownMembers(schema: z.ZodType, value: unknown, path = ""): string[] {
  if (value === null || typeof value !== "object") return [];
  const inner = bareSchema(schema);
  if (Array.isArray(value)) {
    if (!(inner instanceof z.ZodArray)) return [];
    const { element } = inner as z.ZodArray<z.ZodType>;
    return value.flatMap((item, i) => unknownMembers(element, item, `${path}[${i}]`));
  }
  const shape = shapeFor(inner, value as Record<string, unknown>);
  if (!shape) return [];
  return Object.entries(value).flatMap(([name, member]) => {
    const at = path === "" ? name : `${path}.${name}`;
    if (Object.hasOwn(shape, name)) return unknownMembers(shape[name] as z.ZodType, member, at);
    return asksForNothing(member) ? [] : [at];
  });
}

function asksForNothing(value: unknown): boolean {
  return !value || (typeof value === "object" && Object.keys(value).length === 0);
}

/** A schema without what makes it optional or reads other spellings first. */
function bareSchema(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable) {
    return bareSchema(schema.unwrap() as z.ZodType);
  }
  return schema instanceof z.ZodPipe ? bareSchema(schema.out as z.ZodType) : schema;
}

/** The members of an object schema, or of the one of several that the value names itself to be. */
function shapeFor(schema: z.ZodType, value: Record<string, unknown>): Record<string, unknown> | undefined {
  if (schema instanceof z.ZodObject) return schema.shape;
  if (!(schema instanceof z.ZodDiscriminatedUnion)) return undefined;
  const { discriminator, options } = schema.def;
  const named = (options as z.ZodType[]).find(
    (option) => option instanceof z.ZodObject && option.shape[discriminator]?.safeParse(value[discriminator]).success,
  );
  return named instanceof z.ZodObject ? named.shape : undefined;
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
