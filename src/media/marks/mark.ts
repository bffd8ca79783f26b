// The marks of one file, put on in their order: metadata while it is encoded, then whatever needs the finished bytes.
// What encodes calls it: encode.ts for pictures, mp4.ts for videos. Knows no request; which marks there are is decided
// once, where the program starts. The engine's pixels are never marked before they come here.

import { appendFile } from "node:fs/promises";
import type { RgbImage } from "../../engine/request.js";
import { type Maker, xmpBox, xmpPacket } from "./xmp.js";

export const markLevels = ["none", "metadata"] as const;
/** How much is marked. */
export type MarkLevel = (typeof markLevels)[number];

/** The marks of all files that a program writes. Plain values, which cross to threads. */
export type Marking = Omit<Maker, "hasReferences">;

/** The marks of one file; where it may be undefined that means none. */
export type FileMarks = Marking & Maker;

/** The marks of one file. */
export function marksOf(marking: Marking | undefined, hasReferences: boolean): FileMarks | undefined {
  return marking && { ...marking, hasReferences };
}

/** The names of the marks that a file carries. */
export function markNames(marks: FileMarks | undefined): string[] {
  return marks ? ["metadata"] : [];
}

/**
 * A picture as a marked file.
 * @param encode makes a file of pixels and the XMP packet that it is to hold
 */
export async function mark(
  image: RgbImage,
  marks: FileMarks | undefined,
  encode: (image: RgbImage, xmp: string | undefined) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  return encode(image, marks && xmpPacket(marks));
}

/** Marks a finished MP4 file in its place. */
export async function markVideo(path: string, marks: FileMarks | undefined): Promise<void> {
  if (!marks) return;
  await appendFile(path, xmpBox(xmpPacket(marks)));
}
