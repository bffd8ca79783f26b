// Image sources to files. Owns what may be read: data URIs, pictures of this server, hosts that were allowed; never a
// file, never another address. What the bytes are is judged by reference-files.ts.

import type { Asset } from "../../media/store.js";
import { ApiError } from "../http/api-error.js";
import type { Caller } from "../http/caller.js";
import type { DrawingContext } from "./context.js";
import { decodeBase64, decodeDataUri } from "./data-uris.js";
import { assetOfUrl } from "./files.js";
import { fetchRemoteImage } from "./remote-images.js";

/** Where an image is to be read from, and the member of the request that said so. */
export type ImageSource =
  | { from: "file"; bytes: Uint8Array; param: string }
  | { from: "base64"; data: string; param: string }
  | { from: "url"; url: string; param: string }
  | { from: "asset"; id: string; param: string };

/** The bytes of an image, whatever they are. Throws ApiError. */
export async function readSource(context: DrawingContext, source: ImageSource, caller: Caller): Promise<Uint8Array> {
  const { param } = source;
  if (source.from === "file") return source.bytes;
  if (source.from === "base64") return decodeBase64(source.data, param);
  if (source.from === "asset") return readAsset(context, source.id, caller, param);
  const { url } = source;
  if (/^data:/i.test(url)) return decodeDataUri(url, param);
  const asset = assetOfUrl(url);
  const hosts = context.options.imageHosts;
  // Another server of this kind, from which pictures are fetched, has URLs of the same form.
  const isElsewhere = asset === undefined || (URL.canParse(url) && hosts.includes(new URL(url).host));
  if (asset !== undefined && (!isElsewhere || findAsset(context, asset, caller))) {
    return readAsset(context, asset, caller, param);
  }
  return fetchRemoteImage(url, { hosts, param, signal: caller.signal });
}

/** A stored file that this caller may read. With protected media others' are unknown to it. */
export function findAsset({ store, options }: DrawingContext, id: string, { key }: Caller): Asset | undefined {
  const asset = store.get(id);
  return asset && (!options.protectMedia || asset.owner === key) ? asset : undefined;
}

async function readAsset(context: DrawingContext, id: string, caller: Caller, param: string): Promise<Uint8Array> {
  const bytes = findAsset(context, id, caller) && (await context.store.read(id));
  if (bytes) return bytes;
  const message = `the image ${id} is not here: it has expired or was evicted or deleted`;
  throw new ApiError("not_found", "media_not_found", message, { param });
}
