// The files of `daybreak bench`: results as JSON, read and kept, and the drawings beside them. Knows no benchmark.

import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Drawings } from "../../bench/drawings.js";
import { DaybreakError } from "../errors.js";

/** A parsed file. Errors: `file.unreadable`; `request.option_invalid` where it is no JSON. */
export function readJson(path: string): unknown {
  let text: string;
  try {
    text = new TextDecoder().decode(readFileSync(path)); // without the mark that editors on Windows begin a file with
  } catch (cause) {
    const { message } = cause as Error;
    throw new DaybreakError("file.unreadable", `cannot read ${resolve(path)}: ${message}`, { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new DaybreakError("request.option_invalid", `${path} is no JSON: ${(cause as Error).message}`, { cause });
  }
}

/** Throws `request.option_invalid` for a path that does not end in .json: a drawing would replace the result. */
export function checkJsonName(option: string, path: string): void {
  if (/[^/\\]\.json$/i.test(path)) return;
  throw new DaybreakError("request.option_invalid", `got ${option} ${path}, expected a name that ends in .json`);
}

/** Throws `output.unwritable`. */
export function keep(text: string, path: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    throw new DaybreakError("output.unwritable", `cannot write ${resolve(path)}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** Writes drawings beside their result, FILE.html for FILE.json, and returns their paths. Throws `output.unwritable`. */
export function keepDrawings(drawings: Drawings, jsonPath: string): string[] {
  return Object.entries(drawings).map(([ending, text]) => {
    const path = jsonPath.replace(/json$/i, ending);
    keep(text, path);
    return path;
  });
}
