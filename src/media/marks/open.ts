// Which marks a program writes, from what its user chose: read, judged and tried once, before anything is drawn.
// Owns what is said of it at the start. Of signing it knows whether it works: a small picture is signed to find out.

import { readFile, stat } from "node:fs/promises";
import type { RgbImage } from "../../engine/request.js";
import { DaybreakError } from "../../errors.js";
import type { EncodeOptions } from "../encode.js";
import type { CredentialFiles, ReadSigner } from "./certificates.js";
import { type Marking, type MarkLevel, markNames, marksOf } from "./mark.js";

/** What a user chose. */
export type MarkChoice = {
  level: MarkLevel;
  /** "none": files are not signed; undefined: self-made ones with level `full`, else none. */
  credentials?: CredentialFiles | "none";
  /** Of level `full`. */
  watermark?: Marking["watermark"];
};

/** The marks of a program; undefined: none. `said`: one line about them. `warnings`: what their user should know. */
export type OpenedMarks = { marking: Marking | undefined; said: string; warnings: string[] };

type Maker = { model: string; version: string };
type Encode = (image: RgbImage, options: EncodeOptions) => Promise<Uint8Array>;

const trialImage = { width: 16, height: 16, data: new Uint8Array(16 * 16 * 3) };

/**
 * Opens the marks of a program that draws with `model`.
 * @param encode by which it will encode its pictures
 * @param kept the folder that keeps self-made credentials; default: they are made anew
 * Errors: `marks.credentials_invalid`, `marks.unavailable` for credentials of one's own, `marks.failed`.
 */
export async function openMarks(
  { level, credentials, watermark }: MarkChoice,
  maker: Maker,
  encode: Encode,
  kept?: string,
): Promise<OpenedMarks> {
  if (level === "none") return { marking: undefined, said: "files do not say that a machine made them", warnings: [] };
  const marking: Marking = { ...maker, watermark: level === "full" ? watermark : undefined };
  const begin = "files say that a machine made them: ";
  if (credentials === "none" || (!credentials && level !== "full")) {
    return { marking, said: begin + markNames(marking).join(", "), warnings: [] };
  }
  const { compileModule } = await import("./credentials.js");
  let module: WebAssembly.Module;
  try {
    module = await compileModule();
  } catch (error) {
    // Signatures by named certificates were asked for; level `full` is what can be had.
    if (credentials || !(error instanceof DaybreakError)) throw error;
    const warning = `files bear no content credentials: ${error.message}`;
    return { marking, said: begin + markNames(marking).join(", "), warnings: [warning] };
  }
  const { dayOf } = await import("./certificates.js");
  const read = credentials ? await ownSigner(credentials) : await selfMadeSigner(kept);
  const signing = { ...marking, credentials: await tried(read, module, maker, encode) };
  const whose = credentials ? "" : " (self-made: it shows that a file is unchanged, and names nobody)";
  const names = markNames(signing).join(", ");
  return {
    marking: signing,
    said: `${begin}${names}, signed by "${read.name}" until ${dayOf(read.until)}${whose}`,
    warnings: read.warnings,
  };
}

/** `from`: what to name in errors. */
type Found = ReadSigner & { from: string };

async function ownSigner(files: CredentialFiles): Promise<Found> {
  const { readSigner } = await import("./certificates.js");
  return { ...(await readSigner(files)), from: files.chain };
}

async function selfMadeSigner(folder: string | undefined): Promise<Found> {
  const { keepSelfMade, makeSelfMade, selfMadeFiles } = await import("./self-made.js");
  const fresh = (warnings: string[]) => ({ ...makeSelfMade(), warnings, from: "the self-made credentials" });
  if (folder === undefined) return fresh([]);
  try {
    const isThere = await stat(folder).catch(() => undefined);
    if (!isThere) await keepSelfMade(folder);
  } catch (error) {
    if (!(error instanceof DaybreakError)) throw error;
    return fresh([`self-made credentials cannot be kept in ${folder}, and end with this process: ${error.message}`]);
  }
  return ownSigner(selfMadeFiles(folder));
}

/** What signs, once it has signed something: what remains to be refused is refused now. */
async function tried({ signer, from }: Found, module: WebAssembly.Module, maker: Maker, encode: Encode) {
  const credentials = { module, signer };
  const image = { ...trialImage, data: trialImage.data.slice() };
  try {
    await encode(image, { format: "png", quality: 100, marks: marksOf({ ...maker, credentials }, []) });
    return credentials;
  } catch (error) {
    if (!(error instanceof DaybreakError) || error.code !== "marks.failed") throw error;
    const remedy = "have them issued as C2PA's certificate profile says";
    throw new DaybreakError("marks.credentials_invalid", `${from}: ${error.message}: ${remedy}`, { cause: error });
  }
}

/** Whose signatures a program knows, as certificates in PEM: its own, and the self-made ones that it has kept. */
export async function knownSigners(marking: Marking | undefined, kept: string): Promise<string> {
  const { chainPem, selfMadeFiles } = await import("./self-made.js");
  const own = chainPem(marking?.credentials?.signer.chain ?? []);
  const before = await readFile(selfMadeFiles(kept).chain, "latin1").catch(() => ""); // there may be none
  return own + before;
}
