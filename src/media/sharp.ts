// The optional package `sharp`, which reads and writes JPEG and WebP. The one place that imports it.
// Knows no formats: who needs it says what an installation without it cannot do.

import { DaybreakError, type ErrorCode } from "../errors.js";
import { firstLine, isNotInstalled } from "../missing-package.js";

/**
 * Loads sharp.
 * @param code of the error where it is not installed, or has no binary for this platform
 * @param need what was got that needs it; @param instead what works without
 */
export async function loadSharp(code: ErrorCode, need: string, instead: string) {
  try {
    return (await import("sharp")).default;
  } catch (cause) {
    const message = `got ${need}, which needs the optional package "sharp"; it ${failure(cause)}, or ${instead}`;
    throw new DaybreakError(code, message, { cause });
  }
}

/** Why sharp cannot be used here, and what to do about it; undefined where it can. */
export async function whySharpFails(): Promise<string | undefined> {
  return import("sharp").then(() => undefined, failure);
}

function failure(cause: unknown): string {
  if (isNotInstalled(cause, "sharp")) return 'is not installed: run "npm install sharp"';
  return `does not load here (${firstLine(cause)}): run "npm install sharp --include=optional" on this very system`;
}
