// Reads the fields of one config file with a range for each: nothing absurd gets past this point.
// Knows no model; the parsers in models/ say which fields there are and what they may be. Two kinds of refusal: a value
// that cannot be meant (`model.config_invalid`) and one that another architecture would have (`…_unsupported`).

import { DaybreakError } from "../../errors.js";
import { type CheckpointSource, isRecord, quote, readJson } from "./source.js";

type Range = { min: number; max: number };

/** A config file's fields. Every getter throws if the field is absent, unless it has a `fallback` for that. */
export type ConfigFields = {
  path: string;
  /** What runs here, for messages. */
  supported: string;
  /** The value as parsed; undefined if absent. */
  raw(key: string): unknown;
  integer(key: string, range: Range & { fallback?: number }): number;
  number(key: string, range: Range & { fallback?: number }): number;
  boolean(key: string, fallback?: boolean): boolean;
  integers(key: string, range: Range & { minLength: number; maxLength: number }): number[];
  /** The field is one of `supported`, or absent if these include undefined; anything else is another architecture. */
  oneOf(key: string, supported: readonly unknown[]): void;
  /** Throws `model.config_invalid`: `key`'s value is not what `expected` says. */
  invalid(key: string, expected: string): never;
  /** Throws `model.architecture_unsupported`. */
  unsupported(key: string, expected: string): never;
};

/**
 * A reader of a checkpoint's config files.
 * @param supported what runs here, for messages
 * Errors: those of the source; reading: `model.part_missing`, `model.config_invalid`.
 */
export async function configReader(
  source: CheckpointSource,
  supported: string,
): Promise<(path: string) => Promise<ConfigFields>> {
  const present = new Set(await source.list());
  return async (path) => {
    if (present.has(path)) return configFields(path, await readJson(source, path), supported);
    throw new DaybreakError(
      "model.part_missing",
      `the checkpoint has no ${path}: fetch the folder ${path.split("/")[0]}/`,
    );
  };
}

/** The fields of parsed JSON; `path` and what is `supported` are for messages. */
export function configFields(path: string, json: unknown, supported: string): ConfigFields {
  if (!isRecord(json)) {
    throw new DaybreakError(
      "model.config_invalid",
      `${path} holds ${quote(json)}, expected a JSON object: fetch the file again`,
    );
  }
  // Own fields only: a config without `constructor` does not have one.
  const raw = (key: string): unknown => (Object.hasOwn(json, key) ? json[key] : undefined);
  const got = (key: string) => `${path}: got ${key} = ${quote(raw(key))}`;
  const invalid = (key: string, expected: string): never => {
    throw new DaybreakError(
      "model.config_invalid",
      `${got(key)}, expected ${expected}: correct the file or fetch it again`,
    );
  };
  const unsupported = (key: string, expected: string): never => {
    throw new DaybreakError(
      "model.architecture_unsupported",
      `${got(key)}, expected ${expected}: only ${supported} runs here`,
    );
  };
  const inRange = (value: unknown, { min, max }: Range): value is number =>
    typeof value === "number" && value >= min && value <= max; // NaN fails both

  return {
    ...{ path, supported },
    raw,
    invalid,
    unsupported,
    integer: (key, range) => {
      const value = raw(key) ?? range.fallback;
      if (inRange(value, range) && Number.isInteger(value)) return value;
      return invalid(key, `an integer from ${range.min} to ${range.max}`);
    },
    number: (key, range) => {
      const value = raw(key) ?? range.fallback;
      return inRange(value, range) ? value : invalid(key, `a number from ${range.min} to ${range.max}`);
    },
    boolean: (key, fallback) => {
      const value = raw(key) ?? fallback;
      return typeof value === "boolean" ? value : invalid(key, "true or false");
    },
    integers: (key, range) => {
      const value = raw(key);
      const { minLength, maxLength } = range;
      const fits = Array.isArray(value) && value.length >= minLength && value.length <= maxLength;
      if (fits && value.every((item) => inRange(item, range) && Number.isInteger(item))) return value;
      const length = minLength === maxLength ? `${minLength}` : `${minLength} to ${maxLength}`;
      return invalid(key, `${length} integers from ${range.min} to ${range.max}`);
    },
    oneOf: (key, supported) => {
      if (supported.includes(raw(key))) return;
      const values = supported.map((value) => (value === undefined ? "nothing" : JSON.stringify(value)));
      unsupported(key, values.join(" or "));
    },
  };
}
