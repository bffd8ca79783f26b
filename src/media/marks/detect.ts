// Which marks a file carries that say that a machine made it: its metadata, its content credentials, the watermark in its
// pixels, each looked at by itself. Needs no model and no network, nothing but the file. What a file is, and what is refused
// of it, is as for references. A mark that is not found proves nothing: all of them can be taken off.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaybreakError } from "../../errors.js";
import { type FoundWatermark, findWatermark, findWatermarkInFrames } from "../../watermark/find-watermark.js";
import { defaultKey } from "../../watermark/pattern.js";
import type { WatermarkKind } from "../../watermark/payload.js";
import { decodeImage, fileFormat, imageSize } from "../images.js";
import { type VideoFacts, videoFacts } from "../mp4-boxes.js";
import { frameDecoder, spreadFrames } from "../video-frames.js";
import { type CredentialsReport, type ReadCredentials, readCredentials, shortSourceType } from "./read-credentials.js";
import { readXmp, type Xmp } from "./read-xmp.js";

export type DetectOptions = {
  /** A watermark's key, 32 bits, that is tried besides the default one. */
  key?: number;
  /** Certificates in PEM of those whose signatures count as known. */
  anchors?: string;
  /** Where the same bytes lie as a file, from which a video is decoded; default: a temporary file. */
  path?: string;
};

/** What a file carries, in the words of the HTTP interface. Members that do not apply are left out. */
export type Marks = {
  object: "marks";
  /** `daybreak`: made by this program; `ai`: says of itself that a machine made it; `none`: no mark was found. */
  verdict: "daybreak" | "ai" | "none";
  format: "png" | "jpeg" | "webp" | "mp4";
  /** `signed`: whether intact credentials vouch for them. */
  metadata: { found: boolean; digital_source_type?: string; creator_tool?: string; signed?: boolean };
  credentials: CredentialsReport;
  watermark: WatermarkReport;
};

type WatermarkReport = {
  found: boolean;
  /** Whether it was looked for; if not, `reason` tells why. */
  checked: boolean;
  reason?: string;
  /** How well the best place fits, in standard deviations; 8.5 is found. */
  z?: number;
  /** What it says; left out where it cannot be read. */
  kind?: WatermarkKind;
  id?: number;
  /** How the picture was scaled and turned since it was marked. */
  scale?: number;
  degrees?: number;
};

const types = { PNG: "image/png", JPEG: "image/jpeg", WebP: "image/webp", MP4: "video/mp4" } as const;
const names = { PNG: "png", JPEG: "jpeg", WebP: "webp", MP4: "mp4" } as const;
const framesOfVideo = 8;
/** IPTC's words for what is made by a trained model, wholly or in part. */
const aiTypes = ["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"];

/** What a file's bytes and header say, before anything is decoded; `video`: of an MP4. */
export type FileFacts = { format: keyof typeof types; video?: VideoFacts };

/**
 * Judges a file by its first bytes and its header, in milliseconds.
 * Errors: `reference.not_an_image`, `.format_unsupported`, `.truncated`, `.damaged`, `.too_large` (above 64 megapixels).
 */
export function checkFile(bytes: Uint8Array): FileFacts {
  const format = fileFormat(bytes);
  if (format === "MP4") return { format, video: videoFacts(bytes) };
  imageSize(bytes);
  return { format };
}

/**
 * Looks for the marks of a PNG, JPEG, WebP or MP4 file. Blocks for milliseconds to a few seconds, longest where there is no
 * watermark. JPEG and WebP need the optional package `sharp`, videos ffmpeg on the PATH or the optional package
 * `@napi-rs/webcodecs`, credentials `@contentauth/c2pa-wasm`: without them that layer is not checked and says why.
 * Errors: those of {@link checkFile}, and what only decoding finds: `reference.truncated`, `.damaged`.
 */
export async function detectMarks(bytes: Uint8Array, options: DetectOptions = {}): Promise<Marks> {
  const { format, video } = checkFile(bytes);
  const xmp = await readXmp(bytes);
  const isElsewhere = xmp.provenance !== undefined;
  const credentials = await readCredentials(bytes, types[format], { anchors: options.anchors, isElsewhere });
  const watermark = await (video ? inVideo(bytes, video, options) : inPicture(bytes, options));
  const metadata = metadataOf(xmp, isIntact(credentials.report));
  return {
    object: "marks",
    verdict: verdictOf(metadata, credentials, watermark),
    format: names[format],
    metadata,
    credentials: credentials.report,
    watermark,
  };
}

/** The file that content credentials speak of is as it was signed. */
function isIntact({ state }: CredentialsReport): boolean {
  return state === "trusted" || state === "valid";
}

function metadataOf({ digitalSourceType, creatorTool }: Xmp, signed: boolean): Marks["metadata"] {
  if (digitalSourceType === undefined) return { found: false };
  const creator = creatorTool === undefined ? {} : { creator_tool: creatorTool };
  return { found: true, digital_source_type: shortSourceType(digitalSourceType), ...creator, signed };
}

function verdictOf(
  metadata: Marks["metadata"],
  { report, isOurs }: ReadCredentials,
  watermark: WatermarkReport,
): Marks["verdict"] {
  const isAi = (type: string | undefined) => type !== undefined && aiTypes.includes(type);
  const isSignedAi = isIntact(report) && isAi(report.digital_source_type);
  if (watermark.found || (isSignedAi && isOurs)) return "daybreak";
  return isSignedAi || isAi(metadata.digital_source_type) ? "ai" : "none";
}

const keysOf = ({ key }: DetectOptions) => [...new Set([key ?? defaultKey, defaultKey])];

async function inPicture(bytes: Uint8Array, options: DetectOptions): Promise<WatermarkReport> {
  try {
    return told(findWatermark(await decodeImage(bytes), { keys: keysOf(options) }));
  } catch (error) {
    // The file is what it should be, its decoder is not installed.
    if (!(error instanceof DaybreakError) || error.code !== "reference.format_unsupported") throw error;
    return unchecked(error.message);
  }
}

async function inVideo(bytes: Uint8Array, facts: VideoFacts, options: DetectOptions): Promise<WatermarkReport> {
  const decoder = await frameDecoder();
  if (!decoder) {
    return unchecked("videos need the program ffmpeg on the PATH, or the optional package @napi-rs/webcodecs");
  }
  try {
    return await atPath(bytes, options, async (path) => {
      const frames = spreadFrames(decoder, path!, facts, framesOfVideo);
      return told(await findWatermarkInFrames(frames, { keys: keysOf(options) }));
    });
  } catch (error) {
    return unchecked(`the video cannot be decoded here: ${error instanceof Error ? error.message : String(error)}`);
  }
}

const unchecked = (reason: string): WatermarkReport => ({ found: false, checked: false, reason });

function told({ found, z, payload, scale, degrees }: FoundWatermark): WatermarkReport {
  const fit = { found, checked: true, z: rounded(z, 1) };
  return found ? { ...fit, ...payload, scale: rounded(scale, 3), degrees: rounded(degrees, 1) % 360 } : fit;
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** Does something with a video as a file, where its options say, or in a temporary one; with a picture without any. */
export async function atPath<T>(
  bytes: Uint8Array,
  { path }: DetectOptions,
  work: (path: string | undefined) => Promise<T>,
): Promise<T> {
  if (path !== undefined || fileFormat(bytes) !== "MP4") return work(path);
  const folder = await mkdtemp(join(tmpdir(), "daybreak-detect-"));
  try {
    const file = join(folder, "video.mp4");
    await writeFile(file, bytes, { mode: 0o600 });
    return await work(file);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
