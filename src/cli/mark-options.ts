// The options by which `generate` and `serve` are told how files say that a machine made them: their names, their help,
// and what their values may be. What the marks are, and how they come into files, is the media's.

import { DaybreakError, type ErrorCode } from "../errors.js";
import { markLevels } from "../media/marks/mark.js";
import type { MarkChoice } from "../media/marks/open.js";
import type { ParsedOptions } from "./command.js";

export const markOptions = ["mark", "content-credentials"] as const;

export const markHelp = `\
  --mark none|metadata     whether files say in their metadata (XMP) that a machine made them; default metadata, which
                           changes no pixel; none gives the bare files
  --content-credentials CHAIN,KEY|none  also sign files (C2PA) with the certificates in one PEM file, the signer's
                           first, and its key in another; needs the package @contentauth/c2pa-wasm; default none
`;

/** @param code of the error for a value that cannot be */
export function readMarkChoice(options: ParsedOptions, code: ErrorCode): MarkChoice {
  const text = options.text("mark") ?? "metadata";
  const level = markLevels.find((known) => known === text);
  if (level === undefined) throw new DaybreakError(code, `got --mark ${text}, expected ${markLevels.join(", ")}`);
  const credentials = readCredentials(options);
  if (level === "none" && credentials) {
    const expected = "expected marks to sign: leave out one of them";
    throw new DaybreakError(code, `got --mark none with --content-credentials, ${expected}`);
  }
  return { level, credentials };
}

function readCredentials(options: ParsedOptions): MarkChoice["credentials"] {
  const text = options.text("content-credentials");
  if (text === undefined || text === "none") return undefined;
  const [chain, key, ...more] = text.split(",");
  if (chain && key && more.length === 0) return { chain, key };
  throw new DaybreakError(
    "marks.credentials_invalid",
    `got --content-credentials ${text}, expected none or the paths of two PEM files with a comma between them: ` +
      "the certificates, the signer's first, and the signer's key",
  );
}
