// The parts that files of the four formats consist of, found by walking over them: where metadata and content credentials
// lie. A file that breaks off or contradicts itself is walked over as far as it goes: whether it is a picture or a video is
// judged elsewhere. Source: PNG specification, clause 5; ITU-T T.81, annex B; RFC 9649; C2PA 2.2, annex A.3.

import { mp4Boxes } from "../mp4-boxes.js";

/** The four formats, as files are served. */
export type FileType = "image/png" | "image/jpeg" | "image/webp" | "video/mp4";

/** A chunk of PNG or WebP or a box of MP4 by its four letters, a segment of JPEG by its marker in hexadecimal. */
export type FilePart = { name: string; content: Buffer; isCut: boolean };

/** Parts that are looked at: far more than any writer makes, and read within milliseconds. */
const maxParts = 2 ** 16;
const c2paUuid = Buffer.from("d8fec3d61b0e483c92975828877ec481", "hex");

/** The parts of a file in their order; of a JPEG those before its pixels, of an MP4 those of the first level. */
export function* fileParts(bytes: Uint8Array): Generator<FilePart> {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file[0] === 0x89) yield* chunks(file, 8, 4, (at) => file.readUInt32BE(at));
  else if (file[0] === 0xff) yield* segments(file);
  else if (file.toString("latin1", 0, 4) === "RIFF") yield* chunks(file, 12, 0, (at) => file.readUInt32LE(at + 4));
  else for (const { type, ...box } of mp4Boxes(file)) yield { name: type, ...box };
}

/**
 * Chunks of eight bytes and what they announce.
 * @param ending bytes behind each: PNG's checksum; RIFF fills up to even lengths instead
 */
function* chunks(file: Buffer, begin: number, ending: number, lengthAt: (at: number) => number): Generator<FilePart> {
  const nameAt = ending > 0 ? 4 : 0;
  for (let at = begin, count = 0; at + 8 <= file.length && count < maxParts; count++) {
    const length = lengthAt(at);
    const end = at + 8 + length;
    const name = file.toString("latin1", at + nameAt, at + nameAt + 4);
    yield { name, content: file.subarray(at + 8, end), isCut: end > file.length };
    at = end + (ending > 0 ? ending : length & 1);
  }
}

function* segments(file: Buffer): Generator<FilePart> {
  for (let at = 2, count = 0; count < maxParts; count++) {
    while (file[at] === 0xff && file[at + 1] === 0xff) at++; // fill bytes
    if (file[at] !== 0xff || at + 4 > file.length) return;
    const marker = file[at + 1]!;
    if (marker === 0xda || marker === 0xd9) return;
    const end = at + 2 + Math.max(2, file.readUInt16BE(at + 2));
    yield { name: marker.toString(16), content: file.subarray(at + 4, end), isCut: end > file.length };
    at = end;
  }
}

/** Bytes of the manifests of content credentials. */
export function manifestSize(bytes: Uint8Array): number {
  let total = 0;
  for (const part of fileParts(bytes)) if (isManifest(part)) total += part.content.length;
  return total;
}

function isManifest({ name, content }: FilePart): boolean {
  return name === "uuid" ? content.subarray(0, 16).equals(c2paUuid) : ["caBX", "eb", "C2PA"].includes(name);
}
