// Image files to pixels: which format the bytes are, their size from the header, and decoding to RGB.
// Knows files, not models: what a model demands of a size is the caller's to say, and is applied to the header before
// anything is decoded. Pixels equal those of PIL as the reference pipeline uses it, `exif_transpose(…).convert("RGB")`:
// pictures stand upright, colour profiles are ignored, alpha is dropped, of an animation the first frame counts.

import type { RgbImage, Size } from "../engine/images.js";
import { checkReferenceArea, maxReferencePixels } from "../engine/references.js";
import { DaybreakError, type ErrorCode } from "../errors.js";
import { exifOrientation, type Orientation, upright, uprightSize } from "./orientation.js";
import { decodePng, pngHeader, pngSignature } from "./png.js";
import { loadSharp } from "./sharp.js";

const decodeTimeoutSeconds = 60;

/** Parts of a file that are looked at for its header: far more than any writer makes, and read within milliseconds. */
const maxParts = 2 ** 16;

/** The size as stored; `components` of a JPEG: 1 grey, 3 colour, 4 CMYK. */
type Header = Size & { components: number; orientation: Orientation };
type Format = "PNG" | "JPEG" | "WebP";

/**
 * The size of an image once it is decoded and stands upright, from its header alone: takes milliseconds.
 * Errors: those of {@link decodeImage} that need no pixels.
 */
export function imageSize(bytes: Uint8Array, checkSize: (size: Size) => void = () => undefined): Size {
  return readHeader(bytes, checkSize).size;
}

/**
 * Decodes a PNG, JPEG or WebP file to RGB. The type is told by the bytes, never by a name. JPEG and WebP need the
 * optional package `sharp`.
 *
 * @param checkSize what to demand of the size in pixels; 64 megapixels are the limit in any case
 * Errors: `reference.not_an_image`, `.format_unsupported`, `.truncated`, `.damaged`, `.too_large` and what `checkSize`
 *   throws.
 */
export async function decodeImage(
  bytes: Uint8Array,
  checkSize: (size: Size) => void = () => undefined,
): Promise<RgbImage> {
  const { format, header } = readHeader(bytes, checkSize);
  const stored = await (format === "PNG" ? decodePng(bytes) : decodeWithSharp(bytes, format, header));
  return upright(stored, header.orientation);
}

/** What a file says before its pixels, judged. */
function readHeader(
  bytes: Uint8Array,
  checkSize: (size: Size) => void,
): { format: Format; header: Header; size: Size } {
  const format = sniff(bytes);
  if (!isPicture(format)) throw unexpected(bytes, format, " as a reference, expected PNG, JPEG or WebP");
  const header = headerReaders[format](bytes);
  const size = uprightSize(header, header.orientation);
  checkReferenceArea(size);
  checkSize(size);
  return { format, header, size };
}

function isPicture(format: string | undefined): format is Format {
  return format === "PNG" || format === "JPEG" || format === "WebP";
}

/**
 * The format of a picture's or a video's file, told by its first bytes.
 * Errors: `reference.not_an_image`, `reference.format_unsupported`.
 */
export function fileFormat(bytes: Uint8Array): Format | "MP4" {
  const format = sniff(bytes);
  if (isPicture(format)) return format;
  if (format === videoFormat) return "MP4";
  throw unexpected(bytes, format, ", expected PNG, JPEG, WebP or MP4");
}

const headerReaders: Readonly<Record<Format, (bytes: Uint8Array) => Header>> = {
  PNG: (bytes) => {
    const { width, height, exif } = pngHeader(bytes, maxParts);
    return { width, height, components: 3, orientation: exif ? exifOrientation(exif) : 1 };
  },
  JPEG: jpegHeader,
  WebP: webpHeader,
};

/** @param expected what follows what was got */
function unexpected(bytes: Uint8Array, format: string | undefined, expected: string): DaybreakError {
  if (format !== undefined) {
    return new DaybreakError("reference.format_unsupported", `got ${format}${expected}: convert it`);
  }
  const got = bytes.length === 0 ? "an empty file" : `${bytes.length} bytes that begin with ${hex(bytes)}`;
  return new DaybreakError("reference.not_an_image", `got ${got}${expected}`);
}

const videoFormat = "a video file";

/** Formats by the bytes they begin with, at an offset. */
const magics: readonly { format: string; at: number; bytes: string | Uint8Array }[] = [
  { format: "PNG", at: 0, bytes: pngSignature },
  { format: "JPEG", at: 0, bytes: Uint8Array.of(0xff, 0xd8, 0xff) },
  { format: "WebP", at: 8, bytes: "WEBP" },
  { format: "a GIF file", at: 0, bytes: "GIF8" },
  { format: "a BMP file", at: 0, bytes: "BM" },
  { format: "a TIFF file", at: 0, bytes: "II*\0" },
  { format: "a TIFF file", at: 0, bytes: "MM\0*" },
  { format: "an AVIF file", at: 4, bytes: "ftypavi" },
  { format: "a HEIC file", at: 4, bytes: "ftyphei" },
  { format: "a HEIC file", at: 4, bytes: "ftypmif1" },
  { format: "a JPEG XL file", at: 0, bytes: Uint8Array.of(0xff, 0x0a) },
  { format: "a JPEG XL file", at: 4, bytes: "JXL " },
  { format: "a JPEG 2000 file", at: 4, bytes: "jP  " },
  { format: "an icon file", at: 0, bytes: "\0\0\x01\0" },
  { format: "a Photoshop file", at: 0, bytes: "8BPS" },
  { format: "a PDF file", at: 0, bytes: "%PDF" },
  { format: "an SVG file", at: 0, bytes: "<svg" },
  { format: videoFormat, at: 4, bytes: "ftyp" },
];

function sniff(bytes: Uint8Array): string | undefined {
  const begins = (at: number, wanted: string | Uint8Array) => {
    const expected = typeof wanted === "string" ? Buffer.from(wanted, "latin1") : wanted;
    return expected.every((byte, i) => bytes[at + i] === byte);
  };
  const found = magics.find(({ at, bytes: wanted }) => begins(at, wanted))?.format;
  return found === "WebP" && !begins(0, "RIFF") ? undefined : found;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/**
 * Reads the segments before the pixels: the frame header (SOF), and EXIF, which stands before or after it.
 * Source: ITU-T T.81, annex B; EXIF 3.0, section 4.7.
 */
function jpegHeader(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let frame: Omit<Header, "orientation"> | undefined;
  let orientation: Orientation | undefined;
  for (let at = 2, parts = 0; ; parts++) {
    if (parts > maxParts) throw fault("reference.damaged", "JPEG", `has more than ${maxParts} parts before its pixels`);
    // Stray bytes before a marker are allowed by every decoder; a marker may have several 0xff before its code.
    const next = bytes.indexOf(0xff, at);
    at = next < 0 ? bytes.length : next;
    while (at < bytes.length && bytes[at] === 0xff) at++;
    if (at + 3 > bytes.length) throw fault("reference.truncated", "JPEG", "ends before its pixels");
    const marker = bytes[at++]!;
    if (marker === 0x00 || marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue; // no length follows
    const length = view.getUint16(at);
    if (frame && (marker === 0xd9 || marker === 0xda)) return { ...frame, orientation: orientation ?? 1 };
    const isFrame = marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
    if (length < 2 || marker === 0xd9 || marker === 0xda || (isFrame && length < 8)) {
      throw fault("reference.damaged", "JPEG", "has no frame header before its pixels");
    }
    if (at + length > bytes.length) throw fault("reference.truncated", "JPEG", "ends within its headers");
    if (isFrame && !frame) {
      const [height, width] = [view.getUint16(at + 3), view.getUint16(at + 5)];
      if (width === 0 || height === 0) throw fault("reference.damaged", "JPEG", `says its size is ${width}×${height}`);
      frame = { width, height, components: bytes[at + 7]! };
    }
    const segment = bytes.subarray(at + 2, at + length);
    if (marker === 0xe1 && isExif(segment)) orientation ??= exifOrientation(segment);
    at += length;
  }
}

function isExif(segment: Uint8Array): boolean {
  return Buffer.from(segment.buffer, segment.byteOffset, segment.byteLength).toString("latin1", 0, 6) === "Exif\0\0";
}

/** Source: RFC 9649 (WebP container), RFC 6386 §9.1 (VP8 frame header). */
function webpHeader(bytes: Uint8Array): Header {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = file.toString("latin1", 12, 16);
  if (file.length < (kind === "VP8L" ? 25 : 30)) throw fault("reference.truncated", "WebP", "ends within its header");
  const announced = file.readUInt32LE(4) + 8;
  if (announced > file.length) {
    throw fault("reference.truncated", "WebP", `has ${file.length} of the ${announced} bytes that it announces`);
  }
  const plain = { components: 3, orientation: 1 } as const;
  if (kind === "VP8X") {
    const size = { width: file.readUIntLE(24, 3) + 1, height: file.readUIntLE(27, 3) + 1 };
    return { ...plain, ...size, orientation: webpOrientation(file.subarray(0, announced)) };
  }
  if (kind === "VP8L" && file[20] === 0x2f) {
    const packed = file.readUInt32LE(21);
    return { ...plain, width: (packed & 0x3fff) + 1, height: ((packed >> 14) & 0x3fff) + 1 };
  }
  if (kind === "VP8 " && file.readUIntBE(23, 3) === 0x9d012a) {
    const [width, height] = [file.readUInt16LE(26) & 0x3fff, file.readUInt16LE(28) & 0x3fff];
    if (width > 0 && height > 0) return { ...plain, width, height };
  }
  throw fault("reference.damaged", "WebP", "has no valid header");
}

const webpExifFlag = 0x08;
const exifChunk = Buffer.from("EXIF").readUInt32BE();

/** What the EXIF chunk says, if the header of an extended file announces one: readers ignore it otherwise. */
function webpOrientation(file: Buffer): Orientation {
  if ((file[20]! & webpExifFlag) === 0) return 1;
  for (let at = 12, parts = 0; at + 8 <= file.length; parts++) {
    if (parts > maxParts) throw fault("reference.damaged", "WebP", `has more than ${maxParts} parts`);
    const length = file.readUInt32LE(at + 4);
    if (file.readUInt32BE(at) === exifChunk) return exifOrientation(file.subarray(at + 8, at + 8 + length));
    at += 8 + length + (length & 1);
  }
  return 1;
}

function fault(code: ErrorCode, format: string, what: string, cause?: unknown): DaybreakError {
  const remedy = code === "reference.truncated" ? "send the whole file" : "save the image again";
  return new DaybreakError(code, `got a ${format} file that ${what}: ${remedy}`, { cause });
}

async function decodeWithSharp(bytes: Uint8Array, format: string, header: Header): Promise<RgbImage> {
  const sharp = await loadSharp("reference.format_unsupported", `a ${format} file`, "send PNG");
  const cmyk = header.components === 4;
  try {
    const pixels = sharp(bytes, {
      failOn: "error", // warnings are tolerated, as PIL does
      ignoreIcc: true,
      limitInputPixels: maxReferencePixels,
      sequentialRead: true,
    }).timeout({ seconds: decodeTimeoutSeconds });
    const { data, info } = await (cmyk
      ? pixels.pipelineColourspace("cmyk").toColourspace("cmyk")
      : pixels.removeAlpha().toColourspace("srgb")
    )
      .raw()
      .toBuffer({ resolveWithObject: true });
    const { width, height } = header;
    if (info.width !== width || info.height !== height || data.length !== width * height * (cmyk ? 4 : 3)) {
      throw new Error(`holds ${info.width}×${info.height} pixels where its header says ${width}×${height}`);
    }
    return { width, height, data: cmyk ? cmykToRgb(data) : new Uint8Array(data.buffer, data.byteOffset, data.length) };
  } catch (cause) {
    const reason = (cause instanceof Error ? cause.message : String(cause)).replace(/\s+/g, " ").trim();
    const code = /premature end|truncat|end of (file|stream)/i.test(reason)
      ? "reference.truncated"
      : "reference.damaged";
    throw fault(code, format, `cannot be decoded (${reason})`, cause);
  }
}

/** PIL's conversion, without a profile: channel · (255 − K) / 255, rounded. */
function cmykToRgb(cmyk: Uint8Array): Uint8Array {
  const rgb = new Uint8Array((cmyk.length / 4) * 3);
  for (let from = 0, to = 0; from < cmyk.length; from += 4, to += 3) {
    const white = 255 - cmyk[from + 3]!;
    for (let c = 0; c < 3; c++) rgb[to + c] = Math.max(0, white - Math.round((cmyk[from + c]! * white) / 255));
  }
  return rgb;
}
