// The options by which `generate` and `serve` are told how files say that a machine made them: their names, their help,
// and what their values may be. What the marks are, and how they come into files, is the media's.

import { DaybreakError, type ErrorCode } from "../errors.js";
import { type MarkLevel, markLevels } from "../media/marks/mark.js";
import type { ParsedOptions } from "./command.js";

export const markOptions = ["mark"] as const;

export const markHelp = `\
  --mark none|metadata     whether files say in their metadata (XMP) that a machine made them; default metadata, which
                           changes no pixel; none gives the bare files
`;

/** @param code of the error for a value that cannot be */
export function readMarkLevel(options: ParsedOptions, code: ErrorCode): MarkLevel {
  const text = options.text("mark") ?? "metadata";
  const level = markLevels.find((known) => known === text);
  if (level !== undefined) return level;
  throw new DaybreakError(code, `got --mark ${text}, expected ${markLevels.join(", ")}`);
}
