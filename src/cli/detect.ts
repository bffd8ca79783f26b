// `daybreak detect FILE…`: which marks pictures and videos carry that say that a machine made them. Needs no model, no device
// and no network. Files are looked at one after the other, in a thread of their own, so that the program can be interrupted;
// one that cannot be read fails the run at its end. Names in certificates and metadata are somebody's: they are printed
// without what a terminal would obey.

import { DaybreakError } from "../errors.js";
import { MarkDetector } from "../media/detector.js";
import { readAnchors } from "../media/marks/certificates.js";
import type { Marks } from "../media/marks/detect.js";
import { visibleText } from "../text.js";
import { type Command, type ParsedOptions, UsageError } from "./command.js";
import { named, readMedia } from "./input-files.js";
import { readMarkKey } from "./mark-options.js";
import { print, remark } from "./print.js";

const help = `usage: daybreak detect FILE… [options]

Tells which marks PNG, JPEG, WebP and MP4 files carry that say that a machine made them: their metadata (XMP), their
content credentials (C2PA), and Daybreak's invisible watermark. Needs no model, no GPU and no network.

  --anchors ROOT.pem       certificates of those whose signatures count as known
  --mark-key HEX           a key of watermarks to look for besides the one that everybody knows
  --json                   print one JSON object a file: {file, object, verdict, format, metadata, credentials, watermark}

"no mark found" is never "not made by a machine": marks can be taken off, and most generators put none on. Files may have
up to 512 MiB. JPEG and WebP need the package sharp, credentials @contentauth/c2pa-wasm, videos ffmpeg on the PATH or
@napi-rs/webcodecs; without them that mark is not looked for, and the answer says so. Exit status 0 if all files could be
read, whatever was found.
`;

export const detect: Command = {
  options: { values: ["anchors", "mark-key"], flags: ["json"], positionals: ["FILE…"] },
  help,
  run,
};

async function run(options: ParsedOptions, signal: AbortSignal): Promise<number> {
  const files = options.positionals;
  if (files.length === 0) throw new UsageError("no file given: daybreak detect FILE…");
  const key = readMarkKey(options, "request.option_invalid");
  const path = options.text("anchors");
  const anchors = path === undefined ? undefined : await readAnchors(path);
  const detector = new MarkDetector();
  let status = 0;
  try {
    for (const file of files) {
      try {
        const bytes = await readMedia(file);
        const marks = await detector
          .detect(bytes, { key, anchors, path: file }, signal)
          .catch((error) => Promise.reject(named(file, error)));
        await print(options.flag("json") ? jsonLine(file, marks) : describe(file, marks));
      } catch (error) {
        const isAboutFile = error instanceof DaybreakError && /^(file|reference)\./.test(error.code);
        if (!isAboutFile) throw error;
        await remark(`error: ${error.code}: ${visibleText(error.message)}\n`);
        status = 1;
      }
    }
  } finally {
    await detector.close();
  }
  return status;
}

function jsonLine(file: string, marks: Marks): string {
  return `${visibleText(JSON.stringify({ file, ...marks }))}\n`;
}

const verdicts: Readonly<Record<Marks["verdict"], string>> = {
  daybreak: "made by Daybreak",
  ai: "says that a machine made it",
  none: "no mark found",
};

function describe(file: string, { verdict, metadata, credentials, watermark }: Marks): string {
  const lines = [
    `${file}  ${verdicts[verdict]}`,
    `  metadata     ${describeMetadata(metadata)}`,
    `  credentials  ${describeCredentials(credentials)}`,
    `  watermark    ${describeWatermark(watermark)}`,
  ];
  return lines.map((line) => `${visibleText(line.replaceAll(/[\r\n]+/g, " "))}\n`).join("");
}

function describeMetadata({ found, digital_source_type, creator_tool }: Marks["metadata"]): string {
  return found ? listed(digital_source_type, creator_tool) : "not found";
}

function describeCredentials({ found, checked, reason, ...said }: Marks["credentials"]): string {
  if (!checked) return `${found ? "found, " : ""}not checked: ${reason}`;
  if (!found) return "not found";
  const { state, problems = [], signer, actions = [] } = said;
  const states = {
    trusted: "valid, signer known",
    valid: "valid, signer not known",
    invalid: `invalid (${problems.join(", ")})`,
  };
  return listed(states[state ?? "invalid"] + (signer === undefined ? "" : `: "${signer}"`), actions[0]);
}

const kinds = { text: "drawn from text", references: "drawn with reference pictures", video: "a video" } as const;

function describeWatermark({
  found,
  checked,
  reason,
  z,
  kind,
  id,
  scale = 1,
  degrees = 0,
}: Marks["watermark"]): string {
  if (!checked) return `not checked: ${reason}`;
  if (!found) return "not found";
  return listed(
    `found (z ${z})`,
    kind === undefined ? "what it says cannot be read" : `${kinds[kind]}, id ${id}`,
    Math.abs(scale - 1) < 0.005 ? undefined : `scaled to ${scale}`,
    degrees === 0 ? undefined : `turned by ${degrees}°`,
  );
}

function listed(...parts: (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined).join(", ");
}
