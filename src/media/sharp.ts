// The optional package `sharp`, which reads and writes JPEG and WebP. The one place that imports it.
// Knows no formats: who needs it says what an installation without it cannot do.

import { DaybreakError, type ErrorCode } from "../errors.js";

/**
 * Loads sharp.
 * @param code of the error where it is not installed, or has no binary for this platform
 * @param need what was got that needs it; @param instead what works without
 */
export async function loadSharp(code: ErrorCode, need: string, instead: string) {
  try {
    return (await import("sharp")).default;
  } catch (cause) {
    throw new DaybreakError(
      code,
      `got ${need}, which needs the optional package "sharp": install it with "npm install sharp", or ${instead}`,
      { cause },
    );
  }
}
