// Pictures to files in the three formats that are served. Knows pixels and formats, not requests or where files go.
// PNG is written here without any package; JPEG and WebP need the optional `sharp`. Blocks for tens of milliseconds:
// servers call it through workers.ts.

import type { RgbImage } from "../engine/request.js";
import { assert, DaybreakError } from "../errors.js";
import { type FileMarks, mark } from "./marks/mark.js";
import { xmpKeyword } from "./marks/xmp.js";
import { encodePng } from "./png.js";
import { loadSharp } from "./sharp.js";

export type ImageFormat = "png" | "jpeg" | "webp";

export type EncodeOptions = {
  format: ImageFormat;
  /** 0 to 100, of JPEG and WebP; 0 counts as 1, their lowest. */
  quality: number;
  /** Text chunks of a PNG, keyword → value; other formats carry none. */
  text?: Readonly<Record<string, string>>;
  /** That a machine made it; by default the file does not say so. */
  marks?: FileMarks;
};

const encodeTimeoutSeconds = 60;

/**
 * An RGB image as a file.
 * Errors: `output.format_unsupported` where sharp is missing, `media.encoder_failed`, `marks.failed`.
 */
export function encodeImage(image: RgbImage, options: EncodeOptions): Promise<Uint8Array> {
  return mark(image, `image/${options.format}`, options.marks, (pixels, xmp) => encodeFile(pixels, options, xmp));
}

async function encodeFile(image: RgbImage, options: EncodeOptions, xmp: string | undefined): Promise<Uint8Array> {
  const { format, text } = options;
  if (format === "png") return encodePng(image, xmp === undefined ? text : { ...text, [xmpKeyword]: xmp });
  const { width, height, data } = image;
  assert(data.length === width * height * 3, `got ${data.length} bytes for ${width}×${height} pixels, expected RGB`);
  const sharp = await loadSharp("output.format_unsupported", `the output format ${format}`, "ask for png");
  const quality = Math.min(100, Math.max(1, Math.round(options.quality)));
  try {
    const pixels = sharp(data, { raw: { width, height, channels: 3 } }).timeout({ seconds: encodeTimeoutSeconds });
    const file =
      format === "jpeg"
        ? pixels.jpeg({ quality, chromaSubsampling: "4:4:4", mozjpeg: false })
        : pixels.webp({ quality, smartSubsample: true }); // WebP has 4:2:0 only; this keeps edges of colour sharp
    const bytes = await (xmp === undefined ? file : file.withXmp(xmp)).toBuffer();
    return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  } catch (cause) {
    const reason = (cause instanceof Error ? cause.message : String(cause)).replace(/\s+/g, " ").trim();
    throw new DaybreakError(
      "media.encoder_failed",
      `got "${reason}" while encoding a ${format} of ${width}×${height} pixels, expected a file: ask for png`,
      { cause },
    );
  }
}
