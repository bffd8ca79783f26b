// The names of what callers may give, judged where they give it: a misspelt one would be as if it had not been given.
// Knows no option's meaning.

import { DaybreakError } from "../errors.js";

/** All names of `T`; the compiler says which are missing. */
export type NamesOf<T> = Readonly<Record<keyof Required<T>, true>>;

/**
 * Checks that `given` is an object that has none but these names. One that is there without a value counts as absent.
 * @param where it is given, such as "generate"
 * Errors: `request.option_invalid`.
 */
export function checkNames(where: string, given: unknown, names: Readonly<Record<string, true>>): void {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    const got = given === null ? "null" : Array.isArray(given) ? "an array" : typeof given;
    throw new DaybreakError("request.option_invalid", `got ${got} for ${where}, expected an object with its options`);
  }
  const unknown = Object.entries(given).find(([name, value]) => value !== undefined && !Object.hasOwn(names, name));
  if (!unknown) return;
  const known = Object.keys(names).join(", ");
  throw new DaybreakError("request.option_invalid", `got an option "${unknown[0]}" for ${where}, expected ${known}`);
}
