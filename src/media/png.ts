// PNG files: writing with parameters in text chunks, and decoding to RGB.
// Knows bytes and pixels, not what they are for. Both are done here: pngjs takes two to three times as long to write
// files of the same size; when it reads, it inflates interlaced files without a bound, rounds 16-bit samples instead of
// taking the high byte, and blackens transparent colours.

import { constants, crc32, createInflate, deflateSync } from "node:zlib";
import type { RgbImage } from "../engine/request.js";
import { assert, DaybreakError } from "../errors.js";
import { xmpKeyword } from "./marks/xmp.js";

export const pngSignature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
/** One byte in so many of a row is tried to choose its filter; coprime to 3, so that all channels take part. */
const filterSample = 7;

/**
 * An RGB image as a PNG file.
 * @param text written before the pixels, keyword → value: tEXt where Latin-1 suffices, iTXt (UTF-8) otherwise and for
 *   XMP. A keyword has 1 to 79 Latin-1 characters; U+0000, which text chunks cannot hold, becomes U+FFFD
 */
export function encodePng(image: RgbImage, text: Readonly<Record<string, string>> = {}): Uint8Array {
  const { width, height, data } = image;
  assert(data.length === width * height * 3, `got ${data.length} bytes for ${width}×${height} pixels, expected RGB`);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits a sample, RGB, deflate, adaptive filters, not interlaced
  const texts = Object.entries(text).map(([keyword, value]) => textChunk(keyword, value));
  // Filtered rows of pictures repeat little but have few values: coding these without a search for repetitions takes a
  // third of the time and gives smaller files.
  const pixels = deflateSync(filterRows(image), { level: 6, strategy: constants.Z_RLE });
  const file = [pngSignature, chunk("IHDR", header), ...texts, chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))];
  return new Uint8Array(Buffer.concat(file));
}

/** Rows of RGB as PNG compresses them, each behind the number of its filter. Source: PNG specification, clause 9. */
function filterRows({ width, height, data }: RgbImage): Uint8Array {
  const rowBytes = width * 3;
  const rows = new Uint8Array((rowBytes + 1) * height);
  for (let row = 0; row < height; row++) {
    const line = data.subarray(row * rowBytes, (row + 1) * rowBytes);
    const above = data.subarray((row - 1) * rowBytes, row * rowBytes);
    const to = rows.subarray(row * (rowBytes + 1) + 1, (row + 1) * (rowBytes + 1));
    const filter = row === 0 ? 1 : chooseFilter(line, above);
    rows[row * (rowBytes + 1)] = filter;
    if (filter === 1) filterLeft(line, to);
    else if (filter === 2) filterUp(line, above, to);
    else if (filter === 3) filterAverage(line, above, to);
    else filterPaeth(line, above, to);
  }
  return rows;
}

/** The filter whose output has the least sum of absolute values, as far as a sample of the row tells. */
function chooseFilter(line: Uint8Array, above: Uint8Array): number {
  let [left, up, average, paethSum] = [0, 0, 0, 0];
  for (let i = 3; i < line.length; i += filterSample) {
    const [value, a, b, c] = [line[i]!, line[i - 3]!, above[i]!, above[i - 3]!];
    left += Math.abs(signed(value - a));
    up += Math.abs(signed(value - b));
    average += Math.abs(signed(value - ((a + b) >> 1)));
    paethSum += Math.abs(signed(value - paeth(a, b, c)));
  }
  const least = Math.min(left, up, average, paethSum);
  return [left, up, average, paethSum].lastIndexOf(least) + 1;
}

/** A difference of bytes, modulo 256, in −128 … 127. */
function signed(difference: number): number {
  return (difference << 24) >> 24;
}

function filterLeft(line: Uint8Array, to: Uint8Array): void {
  to.set(line.subarray(0, 3));
  for (let i = 3; i < line.length; i++) to[i] = line[i]! - line[i - 3]!;
}

function filterUp(line: Uint8Array, above: Uint8Array, to: Uint8Array): void {
  for (let i = 0; i < line.length; i++) to[i] = line[i]! - above[i]!;
}

function filterAverage(line: Uint8Array, above: Uint8Array, to: Uint8Array): void {
  for (let i = 0; i < 3; i++) to[i] = line[i]! - (above[i]! >> 1);
  for (let i = 3; i < line.length; i++) to[i] = line[i]! - ((line[i - 3]! + above[i]!) >> 1);
}

function filterPaeth(line: Uint8Array, above: Uint8Array, to: Uint8Array): void {
  for (let i = 0; i < 3; i++) to[i] = line[i]! - above[i]!;
  for (let i = 3; i < line.length; i++) to[i] = line[i]! - paeth(line[i - 3]!, above[i]!, above[i - 3]!);
}

function textChunk(keyword: string, value: string): Buffer {
  assert(
    /^[\x20-\x7e\xa1-\xff]{1,79}$/.test(keyword) && !/^ | {2}| $/.test(keyword),
    `got the PNG keyword ${JSON.stringify(keyword)}, expected 1 to 79 Latin-1 characters`,
  );
  const name = Buffer.from(`${keyword}\0`, "latin1");
  if (keyword !== xmpKeyword && /^[\n\x20-\x7e\xa1-\xff]*$/.test(value)) {
    return chunk("tEXt", Buffer.concat([name, Buffer.from(value, "latin1")]));
  }
  // after the keyword: not compressed, method 0, no language, no translated keyword
  const utf8 = Buffer.from(value.replaceAll("\0", "\ufffd"), "utf8");
  return chunk("iTXt", Buffer.concat([name, Buffer.alloc(4), utf8]));
}

function chunk(type: string, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(data.length + 12);
  bytes.writeUInt32BE(data.length, 0);
  bytes.write(type, 4, "latin1");
  bytes.set(data, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, -4)), data.length + 8);
  return bytes;
}

/** Samples per pixel and allowed bits per sample of PNG's colour types. */
const colourTypes: Readonly<Record<number, { samples: number; depths: readonly number[] }>> = {
  0: { samples: 1, depths: [1, 2, 4, 8, 16] }, // grey
  2: { samples: 3, depths: [8, 16] }, // RGB
  3: { samples: 1, depths: [1, 2, 4, 8] }, // palette
  4: { samples: 2, depths: [8, 16] }, // grey, alpha
  6: { samples: 4, depths: [8, 16] }, // RGBA
};

/** `depth` is bits per sample. */
type Header = { width: number; height: number; depth: number; colourType: number; interlaced: boolean };

/**
 * Width and height, for checks before {@link decodePng}, whose memory they determine, and the data of the eXIf chunk,
 * which may stand behind the pixels. Goes through all chunks, but reads no pixels.
 * @param maxChunks a file of more is refused: to go through them would take long
 * Errors: `reference.not_an_image`, `.truncated`, `.damaged`.
 */
export function pngHeader(
  bytes: Uint8Array,
  maxChunks: number,
): { width: number; height: number; exif: Uint8Array | undefined } {
  const { width, height } = readHeader(bytes);
  let exif: Uint8Array | undefined;
  for (const { data } of readChunks(bytes, [chunkTypes.eXIf], maxChunks)) exif ??= data;
  return { width, height, exif };
}

/**
 * Decodes a PNG of any colour type to 8-bit RGB as PIL's `convert("RGB")` does: alpha and tRNS are dropped, not
 * composited; palettes, grey and packed samples are expanded; colour profiles and gamma are ignored; 16-bit samples
 * keep their high byte (PIL does so for colour; it clips 16-bit grey at 255, which whitens the picture).
 * Holds the compressed and the decoded pixels in memory, and nothing else of their size.
 * Errors: `reference.not_an_image`, `.truncated`, `.damaged`.
 */
export async function decodePng(bytes: Uint8Array): Promise<RgbImage> {
  const header = readHeader(bytes);
  const compressed: Buffer[] = [];
  let palette: Buffer | undefined;
  for (const { type, data } of readChunks(bytes, [chunkTypes.PLTE, chunkTypes.IDAT])) {
    if (type === chunkTypes.IDAT) compressed.push(data);
    else palette = data;
  }
  if (header.colourType === 3 && !palette) throw damaged("has no palette, which its header announces");
  const { width, height } = header;
  const image = { width, height, data: new Uint8Array(width * height * 3) };
  const rows = rowReader(header, palette ?? Buffer.alloc(0), image);
  const inflated = createInflate({ chunkSize: 64 * 1024 });
  inflated.end(Buffer.concat(compressed));
  try {
    // Stops at the last row: whatever follows in the stream, a bomb too, is never inflated.
    for await (const part of inflated) if (rows(part)) return image;
  } catch (cause) {
    if (cause instanceof DaybreakError) throw cause;
    if ((cause as { code?: string }).code === "Z_BUF_ERROR") throw truncated("ends within its pixels", cause);
    throw damaged("has pixels that cannot be decompressed", cause);
  }
  throw truncated("ends within its pixels");
}

function readHeader(bytes: Uint8Array): Header {
  for (const { type, data } of readChunks(bytes)) {
    if (type !== chunkTypes.IHDR || data.length !== 13) break;
    const width = data.readUInt32BE(0);
    const height = data.readUInt32BE(4);
    const [depth = 0, colourType = 0, compression = 0, filter = 0, interlace = 0] = data.subarray(8);
    if (width === 0 || height === 0 || !colourTypes[colourType]?.depths.includes(depth)) break;
    if (compression !== 0 || filter !== 0 || interlace > 1) break;
    return { width, height, depth, colourType, interlaced: interlace === 1 };
  }
  throw damaged("has no valid header");
}

/** The four letters of a chunk's type as one number: files may hold a hundred thousand chunks. */
const chunkTypes = {
  IHDR: 0x49484452,
  PLTE: 0x504c5445,
  IDAT: 0x49444154,
  IEND: 0x49454e44,
  eXIf: 0x65584966,
} as const;

/**
 * The chunks of the wanted types, or all, their checksums verified. Ends with IEND; what follows it is ignored.
 * @param maxChunks how many chunks of any type there may be
 */
function* readChunks(
  bytes: Uint8Array,
  wanted?: readonly number[],
  maxChunks = Number.POSITIVE_INFINITY,
): Generator<{ type: number; data: Buffer }> {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!pngSignature.every((byte, i) => file[i] === byte)) {
    throw new DaybreakError("reference.not_an_image", "got bytes without PNG's signature, expected a PNG file");
  }
  for (let at = pngSignature.length, type = 0, count = 0; type !== chunkTypes.IEND; count++) {
    if (count >= maxChunks) throw damaged(`has more than ${maxChunks} chunks`);
    if (file.length - at < 12) throw truncated("ends before its IEND chunk");
    const length = file.readUInt32BE(at);
    type = file.readUInt32BE(at + 4);
    if (!isFourLetters(type)) throw damaged(`has no chunk where one should begin, at byte ${at}`);
    if (length > file.length - at - 12) {
      throw truncated(`ends within its ${file.toString("latin1", at + 4, at + 8)} chunk of ${length} bytes`);
    }
    if (!wanted || wanted.includes(type)) {
      if (crc32(file.subarray(at + 4, at + 8 + length)) !== file.readUInt32BE(at + 8 + length)) {
        throw damaged(`has a wrong checksum in its ${file.toString("latin1", at + 4, at + 8)} chunk`);
      }
      yield { type, data: file.subarray(at + 8, at + 8 + length) };
    }
    at += length + 12;
  }
}

function isFourLetters(type: number): boolean {
  for (let shift = 0; shift < 32; shift += 8) {
    const letter = ((type >>> shift) & 0xff) | 0x20;
    if (letter < 0x61 || letter > 0x7a) return false;
  }
  return true;
}

function truncated(what: string, cause?: unknown): DaybreakError {
  return new DaybreakError("reference.truncated", `got a PNG file that ${what}: send the whole file`, { cause });
}

function damaged(what: string, cause?: unknown): DaybreakError {
  return new DaybreakError("reference.damaged", `got a PNG file that ${what}: save the image again`, { cause });
}

/** A sub-image of an interlaced file: pixel (x, y) lies at (left + x·across, top + y·down). The whole one otherwise. */
type Pass = { left: number; top: number; across: number; down: number; width: number; height: number };

function passes({ width, height, interlaced }: Header): Pass[] {
  if (!interlaced) return [{ left: 0, top: 0, across: 1, down: 1, width, height }];
  const adam7 = [
    [0, 0, 8, 8],
    [4, 0, 8, 8],
    [0, 4, 4, 8],
    [2, 0, 4, 4],
    [0, 2, 2, 4],
    [1, 0, 2, 2],
    [0, 1, 1, 2],
  ] as const;
  return adam7
    .map(([left, top, across, down]) => ({
      ...{ left, top, across, down },
      width: Math.ceil((width - left) / across),
      height: Math.ceil((height - top) / down),
    }))
    .filter((pass) => pass.width > 0 && pass.height > 0);
}

/** A function that takes inflated bytes as they come, writes finished rows into `image`, and is true after the last. */
function rowReader(header: Header, palette: Buffer, image: RgbImage): (bytes: Uint8Array) => boolean {
  const { samples } = colourTypes[header.colourType]!;
  const pixelBits = samples * header.depth;
  const remaining = passes(header);
  const write = pixelWriter(header, palette, image);
  let row = 0;
  let filled = 0;
  let line = new Uint8Array(0);
  let above = new Uint8Array(0);
  const beginPass = () => {
    const bytes = 1 + Math.ceil((remaining[0]!.width * pixelBits) / 8);
    line = new Uint8Array(bytes);
    above = new Uint8Array(bytes);
    row = 0;
  };
  beginPass();
  return (bytes) => {
    for (let at = 0; at < bytes.length; ) {
      const taken = Math.min(bytes.length - at, line.length - filled);
      line.set(bytes.subarray(at, at + taken), filled);
      at += taken;
      filled += taken;
      if (filled < line.length) break;
      filled = 0;
      const pass = remaining[0]!;
      unfilter(line, above, Math.max(1, pixelBits >> 3));
      write(line, pass, row);
      [line, above] = [above, line];
      if (++row < pass.height) continue;
      remaining.shift();
      if (remaining.length === 0) return true;
      beginPass();
    }
    return false;
  };
}

/**
 * Undoes a row's filter in place; byte 0 of both rows is the filter type, `step` the bytes between neighbours.
 * Source: PNG specification, clause 9.
 */
function unfilter(line: Uint8Array, above: Uint8Array, step: number): void {
  const filter = line[0]!;
  if (filter > 4) throw damaged(`has a row with filter ${filter}, expected 0 to 4`);
  if (filter === 0) return;
  for (let i = 1; i < line.length; i++) {
    const left = i > step ? line[i - step]! : 0;
    const up = above[i]!;
    let predicted = filter === 1 ? left : up;
    if (filter === 3) predicted = (left + up) >> 1;
    else if (filter === 4) predicted = paeth(left, up, i > step ? above[i - step]! : 0);
    line[i] = line[i]! + predicted;
  }
}

function paeth(left: number, up: number, upLeft: number): number {
  const toLeft = Math.abs(up - upLeft);
  const toUp = Math.abs(left - upLeft);
  const toUpLeft = Math.abs(left + up - 2 * upLeft);
  if (toLeft <= toUp && toLeft <= toUpLeft) return left;
  return toUp <= toUpLeft ? up : upLeft;
}

/** A function that expands one unfiltered row (byte 0 is its filter) into the pixels of `image`. */
function pixelWriter(
  { depth, colourType }: Header,
  palette: Buffer,
  image: RgbImage,
): (line: Uint8Array, pass: Pass, row: number) => void {
  const { data } = image;
  const { samples } = colourTypes[colourType]!;
  const scale = colourType === 3 || depth > 8 ? 1 : 255 / (2 ** depth - 1);
  const sampleBytes = depth === 16 ? 2 : 1; // the first of two bytes, the high one, is taken
  return (line, pass, row) => {
    let to = ((pass.top + row * pass.down) * image.width + pass.left) * 3;
    if (colourType === 2 && depth === 8 && pass.across === 1) {
      data.set(line.subarray(1), to);
      return;
    }
    for (let x = 0; x < pass.width; x++, to += pass.across * 3) {
      const from = 1 + x * samples * sampleBytes;
      if (samples >= 3) {
        data[to] = line[from]!;
        data[to + 1] = line[from + sampleBytes]!;
        data[to + 2] = line[from + 2 * sampleBytes]!;
        continue;
      }
      const bit = x * depth;
      const value = depth < 8 ? (line[1 + (bit >> 3)]! >> (8 - depth - (bit & 7))) & (2 ** depth - 1) : line[from]!;
      if (colourType === 3) {
        // An index beyond the palette reads undefined, which is stored as 0: black, as in PIL.
        data[to] = palette[value * 3]!;
        data[to + 1] = palette[value * 3 + 1]!;
        data[to + 2] = palette[value * 3 + 2]!;
      } else {
        data[to] = data[to + 1] = data[to + 2] = value * scale;
      }
    }
  };
}
