// What the bodies of all APIs have in common where they say what is to be drawn.

import { z } from "zod";

/** null means absent, as everywhere in these APIs. */
export const optional = <T extends z.ZodType>(schema: T) => schema.nullish();

/** Case does not count, and jpg is jpeg. */
export const outputFormat = z.preprocess(
  (value) => (typeof value === "string" ? value.toLowerCase().replace(/^jpg$/, "jpeg") : value),
  z.enum(["png", "jpeg", "webp"]),
);
