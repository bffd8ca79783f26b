// Reads results back that a benchmark has kept: tells their kind, and checks what a reader needs of them. Knows no
// benchmark's fields but the one that tells its kind; every reader brings the schema of what it uses.

import type { z } from "zod";
import { DaybreakError } from "../src/errors.js";

export type ResultKind = "kernels" | "generate" | "load" | "server" | "shaders";

export type StoredResult = {
  kind: ResultKind;
  /** The result as a schema describes it. Errors: `request.option_invalid`, naming the first field that does not fit. */
  check<T extends z.ZodType>(schema: T): z.infer<T>;
};

/** What a benchmark's figures depend on, by name. */
export type Settings = Record<string, string | number>;

/** A line for each of the settings that two results do not share. */
export function differingSettings(a: Settings, b: Settings): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].flatMap((name) => {
    const [left, right] = [a[name] ?? "unknown", b[name] ?? "unknown"];
    return left === right ? [] : [`${name} differs: ${left} in A, ${right} in B`];
  });
}

/**
 * A parsed result that a benchmark has kept.
 * @param name stands in errors, such as the file's path
 * Errors: `request.option_invalid` for anything else.
 */
export function storedResult(value: unknown, name: string): StoredResult {
  const refuse = (reason: string): never => {
    throw new DaybreakError(
      "request.option_invalid",
      `${name} holds no result of daybreak bench: ${reason}; expected a file that --output has written`,
    );
  };
  if (typeof value !== "object" || value === null || Array.isArray(value)) return refuse("it is no JSON object");
  const kind: ResultKind =
    "results" in value
      ? "kernels"
      : "warm" in value
        ? "generate"
        : "stages" in value
          ? "load"
          : "healthz" in value
            ? "server"
            : "shaders" in value
              ? "shaders"
              : refuse("unknown kind");
  return {
    kind,
    check: (schema) => {
      const parsed = schema.safeParse(value);
      if (parsed.success) return parsed.data;
      const [issue] = parsed.error.issues;
      return refuse(`at "${issue?.path.join(".") ?? ""}": ${issue?.message}`);
    },
  };
}
