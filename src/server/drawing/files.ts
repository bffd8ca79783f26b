// Finished pictures and videos as files: what the store is to know of them, and the URLs by which they are fetched.

import { createHash } from "node:crypto";
import type { ImageFormat } from "../../media/encode.js";
import type { Asset, AssetFacts } from "../../media/store.js";
import { maxUrlLength } from "./limits.js";

/** A finished picture. */
export type ImageFile = {
  bytes: Uint8Array;
  format: ImageFormat;
  width: number;
  height: number;
  seed: number;
  /** The names of its marks. */
  marks: string[];
};

/** A finished video, in MP4. */
export type VideoFile = {
  width: number;
  height: number;
  seed: number;
  frames: number;
  framesPerSecond: number;
  /** The names of its marks. */
  marks: string[];
};

/** How the path of a picture or a video ends, whatever a proxy has put before it. */
const assetPaths: Readonly<Record<"img" | "vid", RegExp>> = {
  img: /\/v1\/images\/(img_[0-9a-f]{32})\/content\/?$/,
  vid: /\/v1\/videos\/(vid_[0-9a-f]{32})\/content\/?$/,
};

/** Where a stored picture or video can be fetched. */
export function assetUrl(baseUrl: string, { id, kind }: Asset): string {
  return `${baseUrl}/v1/${kind === "vid" ? "videos" : "images"}/${id}/content`;
}

/**
 * The id of the picture, or the video, that a URL names, if it has the form of this server's. A server is reached by many names, and
 * nobody guesses an id: whether there is such a picture tells whether the URL is ours, not the name in it.
 */
export function assetOfUrl(url: string, kind: keyof typeof assetPaths = "img"): string | undefined {
  if (url.length > maxUrlLength) return undefined;
  const base = url.startsWith("/") ? "http://localhost" : undefined;
  if (!URL.canParse(url, base)) return undefined;
  const { protocol, pathname } = new URL(url, base);
  return /^https?:$/.test(protocol) ? assetPaths[kind].exec(pathname)?.[1] : undefined;
}

/** @param owner the key of whoever asked for it */
export function imageFacts(file: ImageFile, prompt: string, owner: string | undefined): AssetFacts {
  const { format, width, height, seed, marks } = file;
  const facts = { mime: `image/${format}`, isPublic: true, seed: String(seed), promptHash: promptHash(prompt) };
  return { ...facts, owner, width, height, format, marks };
}

/** @param owner the key of whoever asked for it */
export function videoFacts(file: VideoFile, prompt: string, owner: string | undefined): AssetFacts {
  const { width, height, seed, frames, framesPerSecond, marks } = file;
  const facts = { mime: "video/mp4", isPublic: true, owner, seed: String(seed), promptHash: promptHash(prompt) };
  return { ...facts, width, height, format: "mp4", marks, facts: { frames, framesPerSecond } };
}

/** Stands for a prompt where the prompt itself has no place. */
function promptHash(prompt: string): string {
  return createHash("sha256").update(prompt).digest("hex").slice(0, 16);
}
