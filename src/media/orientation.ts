// How a picture has to be turned to stand upright, as cameras write it into their files, and the turning. Knows the TIFF
// structure that EXIF is and pixels in memory, no file format: images.ts finds the EXIF part of a file.
// Sources: EXIF 3.0 (CIPA DC-008), section 4.6; the turns are those of PIL's `ImageOps.exif_transpose`, which diffusers
// applies to every picture that it loads.

import type { RgbImage, Size } from "../engine/images.js";

/** Where the first row and column of the stored pixels belong: 1 is upright, 6 what a phone held upright stores. */
export type Orientation = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

const orientationTag = 0x0112;
const shortType = 3;
const longType = 4;
const entryBytes = 12;

/**
 * The orientation that EXIF data says, with or without the mark "Exif\0\0" before it. What is damaged or says nothing is
 * upright: pixels are there, and no decoder refuses a picture for its notes.
 */
export function exifOrientation(data: Uint8Array): Orientation {
  let exif = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  while (exif.toString("latin1", 0, 6) === "Exif\0\0") exif = exif.subarray(6);
  const order = exif.toString("latin1", 0, 4);
  const isLittle = order === "II*\0";
  if ((!isLittle && order !== "MM\0*") || exif.length < 8) return 1;
  const read16 = (at: number) => (isLittle ? exif.readUInt16LE(at) : exif.readUInt16BE(at));
  const read32 = (at: number) => (isLittle ? exif.readUInt32LE(at) : exif.readUInt32BE(at));
  const directory = read32(4);
  if (directory + 2 > exif.length) return 1;
  const entries = read16(directory);
  for (let i = 0; i < entries; i++) {
    const at = directory + 2 + i * entryBytes;
    if (at + entryBytes > exif.length) return 1;
    if (read16(at) !== orientationTag) continue;
    const type = read16(at + 2);
    const value = type === shortType ? read16(at + 8) : type === longType ? read32(at + 8) : 1;
    return read32(at + 4) === 1 && value >= 1 && value <= 8 ? (value as Orientation) : 1;
  }
  return 1;
}

/** The size of a picture of stored size `size` once it stands upright. */
export function uprightSize({ width, height }: Size, orientation: Orientation): Size {
  return orientation >= 5 ? { width: height, height: width } : { width, height };
}

/** A picture as it is meant to be seen. Upright ones come back as they are, others in new memory. */
export function upright(image: RgbImage, orientation: Orientation): RgbImage {
  if (orientation === 1) return image;
  const { width, height, data } = image;
  // Where pixel (0, 0) goes, and how far the next one of its row and of its column lies from there.
  const size = uprightSize(image, orientation);
  const last = { x: size.width - 1, y: (size.height - 1) * size.width };
  const step = {
    2: { origin: last.x, across: -1, down: size.width },
    3: { origin: last.y + last.x, across: -1, down: -size.width },
    4: { origin: last.y, across: 1, down: -size.width },
    5: { origin: 0, across: size.width, down: 1 },
    6: { origin: last.x, across: size.width, down: -1 },
    7: { origin: last.y + last.x, across: -size.width, down: -1 },
    8: { origin: last.y, across: -size.width, down: 1 },
  }[orientation];
  const turned = new Uint8Array(data.length);
  for (let row = 0, from = 0; row < height; row++) {
    let to = (step.origin + row * step.down) * 3;
    for (let column = 0; column < width; column++, from += 3, to += step.across * 3) {
      turned[to] = data[from]!;
      turned[to + 1] = data[from + 1]!;
      turned[to + 2] = data[from + 2]!;
    }
  }
  return { ...size, data: turned };
}
