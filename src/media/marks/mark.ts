// The marks of one file, put on in their order: the watermark into its pixels, metadata while it is encoded, the signature
// over the finished bytes, after which none changes. What encodes calls it: encode.ts for pictures, mp4.ts for videos. Knows
// no request; which marks there are is decided once, where the program starts. The engine's pixels come here unmarked.

import { appendFile, readFile, writeFile } from "node:fs/promises";
import type { RgbImage } from "../../engine/request.js";
import type { WatermarkKind } from "../../watermark/payload.js";
import { ownBytes } from "../transfer.js";
import type { Credentials } from "./credentials.js";
import type { FileType } from "./file-parts.js";
import { type Maker, xmpBox, xmpPacket } from "./xmp.js";

export const markLevels = ["none", "metadata", "full"] as const;
/** How much is marked. */
export type MarkLevel = (typeof markLevels)[number];

/** The marks of all files that a program writes. Crosses to threads. */
export type Marking = Omit<Maker, "hasReferences"> & {
  /** With which files are signed; default: they are not. */
  credentials?: Credentials;
  /** Which number pixels carry, and by which key they are changed; default: they are not. */
  watermark?: { id: number; key?: number };
};

/** The marks of one file; where it may be undefined that means none. */
export type FileMarks = Marking &
  Maker & {
    /** What was used for it, as it was received; empty where nothing is signed. */
    references: Uint8Array[];
    kind: WatermarkKind;
  };

/** The marks of a file for which these pictures, as they were received, were used. */
export function marksOf(
  marking: Marking | undefined,
  references: readonly Uint8Array[],
  isVideo = false,
): FileMarks | undefined {
  if (!marking) return undefined;
  // A view of a part would take all of its memory along to a thread.
  const files = marking.credentials ? references.map(ownBytes) : [];
  const hasReferences = references.length > 0;
  const kind = isVideo ? "video" : hasReferences ? "references" : "text";
  return { ...marking, references: files, hasReferences, kind };
}

/** The marks of what is not the finished file yet. */
export function unsigned(marks: FileMarks | undefined): FileMarks | undefined {
  return marks && { ...marks, credentials: undefined, references: [] };
}

/** The names of the marks that a file carries. */
export function markNames(marks: Marking | undefined): string[] {
  if (!marks) return [];
  const { credentials, watermark } = marks;
  return ["metadata", ...(credentials ? ["credentials"] : []), ...(watermark ? ["watermark"] : [])];
}

/**
 * A picture as a marked file.
 * @param encode makes a file of pixels and the XMP packet that it is to hold
 * Errors: those of `encode`, `marks.failed`.
 */
export async function mark(
  image: RgbImage,
  type: FileType,
  marks: FileMarks | undefined,
  encode: (image: RgbImage, xmp: string | undefined) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  if (!marks) return encode(image, undefined);
  const pixels = await markPixels(image, marks);
  return signed(await encode(pixels, xmpPacket(marks)), type, marks);
}

/** A picture, or a frame of a video, with its watermark; the same one where there is none. */
export async function markPixels(image: RgbImage, marks: FileMarks | undefined): Promise<RgbImage> {
  if (!marks?.watermark) return image;
  const { id, key } = marks.watermark;
  const { embedWatermark } = await import("../../watermark/watermark.js");
  return embedWatermark(image, { payload: { kind: marks.kind, id }, key });
}

/** Marks a finished MP4 file in its place. Errors: `marks.failed`, those of the file system. */
export async function markVideo(path: string, marks: FileMarks | undefined): Promise<void> {
  if (!marks) return;
  const box = xmpBox(xmpPacket(marks));
  if (!marks.credentials) return appendFile(path, box);
  const file = Buffer.concat([await readFile(path), box]);
  await writeFile(path, await signed(file, "video/mp4", marks));
}

async function signed(file: Uint8Array, type: FileType, marks: FileMarks): Promise<Uint8Array> {
  const { credentials, version, references, hasReferences, watermark } = marks;
  if (!credentials) return file;
  const { signFile } = await import("./credentials.js");
  return signFile(
    file,
    type,
    { version, references, hasReferences, hasWatermark: watermark !== undefined },
    credentials,
  );
}
