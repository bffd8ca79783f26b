// The boxes that MP4 files consist of, and what those say of the pictures in the file. Reads no pictures.
// Source: ISO/IEC 14496-12, §4.2 (boxes), §8.2 to §8.8 (what is in moov).

import type { Size } from "../engine/images.js";
import { checkReferenceArea } from "../engine/references.js";
import { DaybreakError } from "../errors.js";

/** `content` ends with the file where `isCut`: the box says that it is longer. */
export type Mp4Box = { type: string; content: Buffer; isCut: boolean };

/** Boxes that are looked at on one level: far more than any writer makes, and read within milliseconds. */
const maxBoxes = 2 ** 16;

/** The boxes within `bytes`, one after the other; ends where none can begin. */
export function* mp4Boxes(bytes: Buffer): Generator<Mp4Box> {
  for (let at = 0, count = 0; at + 8 <= bytes.length && count < maxBoxes; count++) {
    let [size, head] = [bytes.readUInt32BE(at), 8];
    if (size === 1 && at + 16 <= bytes.length) [size, head] = [Number(bytes.readBigUInt64BE(at + 8)), 16];
    else if (size === 0) size = bytes.length - at; // the last one may say so
    if (size < head) return;
    const end = at + size;
    const content = bytes.subarray(at + head, Math.min(end, bytes.length));
    yield { type: bytes.toString("latin1", at + 4, at + 8), content, isCut: end > bytes.length };
    at = end;
  }
}

/** The content of the first box of a path. */
export function mp4Box(bytes: Buffer, ...path: string[]): Buffer | undefined {
  let within: Buffer | undefined = bytes;
  for (const type of path) within = within && first(within, type);
  return within;
}

function first(bytes: Buffer, type: string): Buffer | undefined {
  for (const box of mp4Boxes(bytes)) if (box.type === type) return box.content;
  return undefined;
}

/** What a file says of its video. `seconds`: 0 where it does not tell how long it is. */
export type VideoFacts = Size & { seconds: number };

/**
 * Reads the index of an MP4 file.
 * Errors: `reference.truncated`, `.damaged`, `.not_an_image` (no video in it), `.too_large` (frames above 64 megapixels).
 */
export function videoFacts(bytes: Uint8Array): VideoFacts {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let index: Buffer | undefined;
  let isFragmented = false;
  for (const { type, content, isCut } of mp4Boxes(file)) {
    // Metadata that are cut off leave the pictures whole.
    if (isCut && type !== "uuid" && type !== "free") {
      throw new DaybreakError(
        "reference.truncated",
        `got an MP4 file that ends within its ${type}: send the whole file`,
      );
    }
    if (type === "moov") index ??= content;
    if (type === "moof") isFragmented = true;
  }
  if (!index) throw damaged("has no index (moov)");
  const track = [...mp4Boxes(index)].find(({ type, content }) => type === "trak" && isVideo(content))?.content;
  if (!track) {
    const message = "got an MP4 file without a video, expected pictures: send a file that has some";
    throw new DaybreakError("reference.not_an_image", message);
  }
  const table = mp4Box(track, "mdia", "minf", "stbl");
  const frames = (table && mp4Box(table, "stsz")?.subarray(8, 12)) ?? Buffer.alloc(0);
  if (!isFragmented && (frames.length < 4 || frames.readUInt32BE() === 0)) throw damaged("has a video without frames");
  const size = sizeOf(table && mp4Box(table, "stsd"));
  checkReferenceArea(size);
  return { ...size, seconds: secondsOf(mp4Box(track, "mdia", "mdhd")) };
}

function isVideo(track: Buffer): boolean {
  return mp4Box(track, "mdia", "hdlr")?.toString("latin1", 8, 12) === "vide";
}

/** Of the first kind of pictures; behind version, flags and count there is a box a kind. */
function sizeOf(descriptions: Buffer | undefined): Size {
  const [entry] = descriptions ? mp4Boxes(descriptions.subarray(8)) : [];
  if (!entry || entry.content.length < 28) throw damaged("does not say how large its video is");
  return { width: entry.content.readUInt16BE(24), height: entry.content.readUInt16BE(26) };
}

/** Version 1 has 64-bit times. */
function secondsOf(header: Buffer | undefined): number {
  const isLong = header?.[0] === 1;
  if (!header || header.length < (isLong ? 32 : 20)) return 0;
  const scale = header.readUInt32BE(isLong ? 20 : 12);
  const length = isLong ? Number(header.readBigUInt64BE(24)) : header.readUInt32BE(16);
  const isUnknown = !isLong && length === 0xffffffff;
  return scale === 0 || isUnknown ? 0 : Math.min(length / scale, 1e6);
}

function damaged(what: string): DaybreakError {
  return new DaybreakError("reference.damaged", `got an MP4 file that ${what}: save the video again`);
}
