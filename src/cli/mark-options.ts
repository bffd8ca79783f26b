// The options by which `generate` and `serve` are told how files say that a machine made them: their names, their help,
// and what their values may be. What the marks are, and how they come into files, is the media's.

import { DaybreakError, type ErrorCode } from "../errors.js";
import { markLevels } from "../media/marks/mark.js";
import type { MarkChoice } from "../media/marks/open.js";
import type { ParsedOptions } from "./command.js";

export const markOptions = ["mark", "content-credentials", "mark-id", "mark-key"] as const;

export const markHelp = `\
  --mark none|metadata|full  how files say that a machine made them: not at all; in their metadata (XMP), the default,
                           which changes no pixel; with content credentials and an invisible watermark as well
  --content-credentials CHAIN,KEY|none  sign files (C2PA) with the certificates in one PEM file, the signer's first, and
                           its key in another; needs the package @contentauth/c2pa-wasm; default: self-made ones with
                           --mark full, which name nobody; else none
  --mark-id N              a number that watermarks carry, 0 to 16777215; default 0
  --mark-key HEX           the key of watermarks, 1 to 8 hexadecimal digits; default: the one that everybody knows
`;

const mostId = 2 ** 24 - 1;

/** @param code of the error for a value that cannot be */
export function readMarkChoice(options: ParsedOptions, code: ErrorCode): MarkChoice {
  const text = options.text("mark") ?? "metadata";
  const level = markLevels.find((known) => known === text);
  if (level === undefined) throw new DaybreakError(code, `got --mark ${text}, expected ${markLevels.join(", ")}`);
  const credentials = readCredentials(options);
  if (level === "none" && credentials && credentials !== "none") {
    const expected = "expected marks to sign: leave out one of them";
    throw new DaybreakError(code, `got --mark none with --content-credentials, ${expected}`);
  }
  const watermark = { id: readId(options, code), key: readMarkKey(options, code) };
  const unused = (["mark-id", "mark-key"] as const).find((name) => options.text(name) !== undefined);
  if (level !== "full" && unused) {
    throw new DaybreakError(
      code,
      `got --${unused} with --mark ${level}, expected --mark full: only watermarks have one`,
    );
  }
  return { level, credentials, watermark };
}

function readId(options: ParsedOptions, code: ErrorCode): number {
  const id = options.number("mark-id") ?? 0;
  if (Number.isInteger(id) && id >= 0 && id <= mostId) return id;
  throw new DaybreakError(code, `got --mark-id ${id}, expected a whole number from 0 to ${mostId}`);
}

/** The key of watermarks; undefined: the default one. */
export function readMarkKey(options: ParsedOptions, code: ErrorCode): number | undefined {
  const text = options.text("mark-key");
  if (text === undefined) return undefined;
  if (/^[0-9a-f]{1,8}$/i.test(text)) return Number.parseInt(text, 16);
  throw new DaybreakError(code, `got --mark-key ${text}, expected 1 to 8 hexadecimal digits`);
}

function readCredentials(options: ParsedOptions): MarkChoice["credentials"] {
  const text = options.text("content-credentials");
  if (text === undefined || text === "none") return text;
  const [chain, key, ...more] = text.split(",");
  if (chain && key && more.length === 0) return { chain, key };
  throw new DaybreakError(
    "marks.credentials_invalid",
    `got --content-credentials ${text}, expected none or the paths of two PEM files with a comma between them: ` +
      "the certificates, the signer's first, and the signer's key",
  );
}
