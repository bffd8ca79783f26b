// Finished pictures and videos as files: what the store is to know of them, and the URLs by which they are fetched.

import { createHash } from "node:crypto";
import type { ImageFormat } from "../../media/encode.js";
import type { Asset, AssetFacts } from "../../media/store.js";
import type { Caller } from "../http/caller.js";
import { maxUrlLength } from "./limits.js";

/** A finished picture. */
export type ImageFile = { bytes: Uint8Array; format: ImageFormat; width: number; height: number; seed: number };

/** A finished video, in MP4. */
export type VideoFile = { width: number; height: number; seed: number; frames: number; framesPerSecond: number };

const assetPath = /^\/v1\/images\/(img_[0-9a-f]{32})\/content$/;

/** Where a stored picture or video can be fetched. */
export function assetUrl(baseUrl: string, { id, kind }: Asset): string {
  return `${baseUrl}/v1/${kind === "vid" ? "videos" : "images"}/${id}/content`;
}

/** Which of this server's pictures a URL names, if it does. */
export function assetOfUrl(url: string, caller: Caller): string | undefined {
  if (url.length > maxUrlLength) return undefined;
  if (!URL.canParse(url)) return assetPath.exec(url)?.[1];
  const { protocol, host, pathname, search } = new URL(url);
  const isOwn = /^https?:$/.test(protocol) && caller.hosts.includes(host) && search === "";
  return isOwn ? assetPath.exec(pathname)?.[1] : undefined;
}

export function imageFacts({ format, width, height, seed }: ImageFile, prompt: string): AssetFacts {
  const facts = { mime: `image/${format}`, isPublic: true, seed: String(seed), promptHash: promptHash(prompt) };
  return { ...facts, width, height, format };
}

export function videoFacts(file: VideoFile, prompt: string): AssetFacts {
  const { width, height, seed, frames, framesPerSecond } = file;
  const facts = { mime: "video/mp4", isPublic: true, seed: String(seed), promptHash: promptHash(prompt) };
  return { ...facts, width, height, format: "mp4", facts: { frames, framesPerSecond } };
}

/** Stands for a prompt where the prompt itself has no place. */
function promptHash(prompt: string): string {
  return createHash("sha256").update(prompt).digest("hex").slice(0, 16);
}
