// API keys: kept as hashes, compared in constant time, read anew on demand. Knows no route.

import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { DaybreakError } from "../../errors.js";
import { ApiError } from "./api-error.js";

const minKeyLength = 8;

/** The keys that are let in. */
export class ApiKeys {
  #hashes: Buffer[] = [];

  /** @param keys at least one, each of at least 8 characters */
  constructor(keys: readonly string[]) {
    this.replace(keys);
  }

  /** From now on these are let in and no others. */
  replace(keys: readonly string[]): void {
    this.#hashes = keys.map(sha256);
  }

  get count(): number {
    return this.#hashes.length;
  }

  /**
   * Who the caller is: a short name of the key, the same for every request with it.
   * Throws ApiError `authentication_error`.
   * @param authorization the header, `Bearer KEY`, or `Basic` with the key as the password
   */
  identify(authorization: string | undefined): string {
    const given = givenKey(authorization);
    if (given === undefined) {
      const got = authorization === undefined ? "no Authorization header" : "an Authorization header of another kind";
      throw unauthorized("missing_api_key", `got ${got}, expected "Authorization: Bearer KEY"`);
    }
    const hash = sha256(given);
    // All are compared, so that the time says nothing about which one was near.
    let found: Buffer | undefined;
    for (const known of this.#hashes) if (timingSafeEqual(known, hash)) found = known;
    if (!found) throw unauthorized("invalid_api_key", "this API key is not known here");
    return found.toString("hex", 0, 8);
  }
}

/**
 * Reads a key file: one key a line; empty lines and lines that begin with # do not count.
 * Errors: `file.unreadable`, `server.option_invalid`.
 */
export async function readApiKeys(path: string): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new DaybreakError("file.unreadable", `cannot read the key file ${path}: check the path`, { cause });
  }
  const keys = text.split(/\r?\n/).map((line) => line.trim());
  const used = keys.filter((key) => key !== "" && !key.startsWith("#"));
  const bad = used.find((key) => key.length < minKeyLength || /\s/.test(key));
  if (used.length === 0 || bad !== undefined) {
    const got = bad === undefined ? "no key" : `a key of ${bad.length} characters, or with spaces,`;
    throw new DaybreakError(
      "server.option_invalid",
      `got ${got} in the key file ${path}, expected one key of at least ${minKeyLength} characters a line`,
    );
  }
  return used;
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** AUTOMATIC1111's clients know nothing but Basic. */
function givenKey(authorization = ""): string | undefined {
  const [, scheme = "", credentials = ""] = /^(Bearer|Basic) +(\S+) *$/i.exec(authorization) ?? [];
  if (scheme.toLowerCase() !== "basic") return credentials || undefined;
  return /^[^:]*:(\S+)$/.exec(Buffer.from(credentials, "base64").toString())?.[1];
}

function unauthorized(code: string, message: string): ApiError {
  return new ApiError("authentication_error", code, message, { headers: { "www-authenticate": "Bearer" } });
}
