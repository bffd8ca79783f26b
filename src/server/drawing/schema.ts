// What the bodies of all APIs have in common where they say what is to be drawn.

import { z } from "zod";
import { maxServedSide, maxServedSteps, minServedSide } from "./limits.js";

/** null means absent, as everywhere in these APIs. */
export const optional = <T extends z.ZodType>(schema: T) => schema.nullish();

/** Case does not count, and jpg is jpeg. */
export const outputFormat = z.preprocess(
  (value) => (typeof value === "string" ? value.toLowerCase().replace(/^jpg$/, "jpeg") : value),
  z.enum(["png", "jpeg", "webp"]),
);

export const integer = (least: number, most: number) =>
  z
    .int(`expected an integer from ${least} to ${most}`)
    .min(least, `expected at least ${least}`)
    .max(most, `expected at most ${most}`);

export const side = integer(minServedSide, maxServedSide).multipleOf(16, "expected a multiple of 16");
export const steps = integer(1, maxServedSteps);
export const guidanceScale = z.number().min(0).max(1000);
/** −1: one drawn at random, as if there were none. */
export const seed = integer(-1, Number.MAX_SAFE_INTEGER);

/** Dropped without a word, because it changes nothing about a picture; of other unknown members the answer tells. */
export const meaningless = z
  .unknown()
  .transform(() => undefined)
  .optional();
