// Which marks a program writes, from what its user chose: read, judged and tried once, before anything is drawn.
// Owns what is said of it at the start. Of signing it knows whether it works: a small picture is signed to find out.

import type { RgbImage } from "../../engine/request.js";
import { DaybreakError } from "../../errors.js";
import type { EncodeOptions } from "../encode.js";
import type { CredentialFiles, ReadSigner } from "./certificates.js";
import { type Marking, type MarkLevel, markNames, marksOf } from "./mark.js";

/** What a user chose. */
export type MarkChoice = {
  level: MarkLevel;
  /** Undefined: files are not signed. */
  credentials?: CredentialFiles;
};

/** The marks of a program; undefined: none. `said`: one line about them. `warnings`: what their user should know. */
export type OpenedMarks = { marking: Marking | undefined; said: string; warnings: string[] };

const trialImage = { width: 16, height: 16, data: new Uint8Array(16 * 16 * 3) };

/**
 * Opens the marks of a program that draws with `model`.
 * @param encode by which it will encode its pictures
 * Errors: `marks.credentials_invalid`, `marks.unavailable`, `marks.failed`.
 */
export async function openMarks(
  { level, credentials }: MarkChoice,
  maker: { model: string; version: string },
  encode: (image: RgbImage, options: EncodeOptions) => Promise<Uint8Array>,
): Promise<OpenedMarks> {
  if (level === "none") return { marking: undefined, said: "files do not say that a machine made them", warnings: [] };
  const begin = "files say that a machine made them: ";
  if (!credentials) return { marking: maker, said: `${begin}${markNames(maker).join(", ")}`, warnings: [] };
  const { readSigner, dayOf } = await import("./certificates.js");
  const read = await readSigner(credentials);
  const marking = { ...maker, credentials: await tried(read, maker, encode, credentials.chain) };
  const said = `${begin}${markNames(marking).join(", ")}, signed by "${read.name}" until ${dayOf(read.until)}`;
  return { marking, said, warnings: read.warnings };
}

/** What signs, once it has signed something: what remains to be refused is refused now. */
async function tried(
  { signer }: ReadSigner,
  maker: { model: string; version: string },
  encode: (image: RgbImage, options: EncodeOptions) => Promise<Uint8Array>,
  path: string,
) {
  const { compileModule } = await import("./credentials.js");
  const credentials = { module: await compileModule(), signer };
  const image = { ...trialImage, data: trialImage.data.slice() };
  try {
    await encode(image, { format: "png", quality: 100, marks: marksOf({ ...maker, credentials }, []) });
    return credentials;
  } catch (error) {
    if (!(error instanceof DaybreakError) || error.code !== "marks.failed") throw error;
    const remedy = "have them issued as C2PA's certificate profile says";
    throw new DaybreakError("marks.credentials_invalid", `${path}: ${error.message}: ${remedy}`, { cause: error });
  }
}
