// Stored pictures and videos as files: ranges, validators, deletion. Source of the rules: RFC 9110, sections 13 and 14.
// Bodies are read from the disk as the socket takes them.

import type { Asset, AssetKind } from "../media/store.js";
import type { ServerContext } from "./context.js";
import { findAsset } from "./drawing/references.js";
import { json } from "./http/answers.js";
import { ApiError } from "./http/api-error.js";
import type { Caller } from "./http/caller.js";
import type { HttpRequest, HttpResponse } from "./http/messages.js";
import type { Call, Route } from "./http/routes.js";
import { deletedAsset } from "./service-schema.js";

export function mediaRoutes(context: ServerContext): Route[] {
  const routes = (kind: AssetKind, room: "images" | "videos", mimes: string[]): Route[] => [
    {
      method: "GET",
      path: `/v1/${room}/{id}/content`,
      access: "media",
      summary: `The file of ${room === "images" ? "a picture" : "a video"}, whole or a range`,
      handle: (call) => content(context, kind, call),
      answer: Object.fromEntries(mimes.map((mime) => [mime, "file"])),
    },
    {
      method: "DELETE",
      path: `/v1/${room}/{id}`,
      access: "key",
      summary: `Delete ${room === "images" ? "a picture" : "a video"}`,
      handle: async ({ id, caller }) => {
        const asset = publicAsset(context, kind, id, caller);
        if (asset.owner !== caller.key) throw notFound();
        await context.store.delete(asset.id);
        return json({ id, object: kind === "img" ? "image.deleted" : "video.deleted", deleted: true });
      },
      answer: { "application/json": deletedAsset },
    },
  ];
  return [
    ...routes("img", "images", ["image/png", "image/jpeg", "image/webp"]),
    ...routes("vid", "videos", ["video/mp4"]),
  ];
}

function publicAsset(context: ServerContext, kind: AssetKind, id: string, caller: Caller): Asset {
  const asset = findAsset(context, id, caller);
  if (asset?.kind === kind && asset.isPublic) return asset;
  throw notFound();
}

/** The same for what is another's: nobody learns what is there. */
function notFound(): ApiError {
  const message = "this file is not here: it has expired, or was evicted or deleted, or belongs to another key";
  return new ApiError("not_found", "media_not_found", message);
}

async function content(context: ServerContext, kind: AssetKind, { id, request, caller }: Call): Promise<HttpResponse> {
  const asset = publicAsset(context, kind, id, caller);
  const { bytes, mime, created_ms, sha256 } = asset;
  const headers: Record<string, string> = {
    etag: `"${sha256}"`,
    "last-modified": new Date(created_ms).toUTCString(),
    "cache-control": cacheControl(asset),
    "accept-ranges": "bytes",
    "x-content-type-options": "nosniff",
    // The link is the permission, and pages that want to be isolated (COEP) show only what says so.
    "cross-origin-resource-policy": context.options.protectMedia ? "same-origin" : "cross-origin",
  };
  if (isUnmodified(request, asset)) return { status: 304, headers, body: null };
  const range = requestedRange(request, asset);
  if (range === "unsatisfiable") {
    const message = `got a range outside of the file, which has ${bytes} bytes`;
    const wanted = { "content-range": `bytes */${bytes}`, "accept-ranges": "bytes" };
    throw new ApiError("invalid_request", "range_not_satisfiable", message, { status: 416, headers: wanted });
  }
  const { begin, end } = range ?? { begin: 0, end: bytes };
  headers["content-type"] = mime;
  headers["content-length"] = String(end - begin);
  headers["content-disposition"] = `inline; filename="${asset.id}.${extension(mime)}"`;
  if (range) headers["content-range"] = `bytes ${begin}-${end - 1}/${bytes}`;
  const status = range ? 206 : 200;
  const reader = await context.store.open(id);
  if (!reader) return notFoundAnymore();
  if (request.method !== "HEAD") return { status, headers, body: await begun(reader.stream(begin, end)) };
  await reader.close();
  return { status, headers, body: null };
}

/** The same chunks, the first of which has been read: what is wrong with it can still be answered with an error. */
async function begun(chunks: AsyncIterable<Uint8Array>): Promise<AsyncIterable<Uint8Array>> {
  const iterator = chunks[Symbol.asyncIterator]();
  const first = await iterator.next();
  let isFirst = true;
  const next = async () => {
    if (!isFirst) return iterator.next();
    isFirst = false;
    return first;
  };
  return { [Symbol.asyncIterator]: () => ({ next, return: () => iterator.return!() }) };
}

function notFoundAnymore(): never {
  throw new ApiError("not_found", "media_not_found", "this file has just been deleted");
}

function extension(mime: string): string {
  return mime === "image/jpeg" ? "jpg" : mime.slice(mime.indexOf("/") + 1);
}

/** A file never changes, but it goes; never later than it was meant to, even if the clock was set back since. */
function cacheControl({ created_ms, expires_ms }: Asset): string {
  const left_ms = (expires_ms ?? Number.NaN) - Math.max(created_ms, Date.now());
  const maxAge = expires_ms === null ? 31_536_000 : Math.max(0, Math.floor(left_ms / 1000));
  return `private, immutable, max-age=${maxAge}`;
}

function isUnmodified(request: HttpRequest, { sha256, created_ms }: Asset): boolean {
  const known = request.header("if-none-match");
  // A weak comparison: the prefix W/ does not count. With it If-Modified-Since is ignored.
  if (known !== undefined) return known.trim() === "*" || known.includes(`"${sha256}"`);
  const since = Date.parse(request.header("if-modified-since") ?? "");
  return since >= Math.floor(created_ms / 1000) * 1000;
}

type Range = { begin: number; end: number };

/** A single range of bytes; undefined: the whole file, also for several ranges and for what is no range. */
function requestedRange(request: HttpRequest, asset: Asset): Range | "unsatisfiable" | undefined {
  const [, first = "", last = ""] =
    /^bytes=(\d*)-(\d*)$/i.exec(request.header("range")?.replaceAll(" ", "") ?? "") ?? [];
  if ((first === "" && last === "") || !isStillMeant(request, asset)) return undefined;
  const { bytes } = asset;
  if (first === "") {
    const count = Math.min(Number(last), bytes);
    return count === 0 ? "unsatisfiable" : { begin: bytes - count, end: bytes };
  }
  const begin = Number(first);
  if (last !== "" && Number(last) < begin) return undefined; // no valid range: as if there were none
  if (begin >= bytes) return "unsatisfiable";
  return { begin, end: last === "" ? bytes : Math.min(Number(last) + 1, bytes) };
}

/** If-Range: a range is meant only of the file that the client knows. */
function isStillMeant(request: HttpRequest, { sha256, created_ms }: Asset): boolean {
  const condition = request.header("if-range");
  if (condition === undefined) return true;
  if (condition.includes('"')) return condition.trim() === `"${sha256}"`;
  return Date.parse(condition) === Math.floor(created_ms / 1000) * 1000;
}
