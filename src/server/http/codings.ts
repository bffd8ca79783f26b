// Content codings of request bodies (RFC 9110 §8.4): which are understood, and their decoding as the bytes come, in
// threads that zlib has for it. Knows no limits: a kilobyte may decode to a gigabyte, and who reads has to stop in time.

import { pipeline, type Transform } from "node:stream";
import * as zlib from "node:zlib";
import { ApiError } from "./api-error.js";
import type { HttpRequest } from "./messages.js";

type Bytes = AsyncIterable<Uint8Array>;

/** Bytes that a decoder hands over at once. */
const options = { chunkSize: 64 * 1024 };

/** Newer than the types. */
type Zstd = {
  createZstdDecompress(options: { chunkSize: number }): Transform;
  zstdCompressSync(text: string): Buffer;
  zstdDecompressSync(bytes: Buffer): Buffer;
};

/** Node has it since 22.15, but takes what was cut for complete before 24: such a release does without. */
function soundZstd(): Zstd | null {
  const zstd = zlib as Partial<Zstd>;
  try {
    zstd.zstdDecompressSync?.((zstd as Zstd).zstdCompressSync("whole").subarray(0, -1));
    return null;
  } catch {
    return zstd as Zstd;
  }
}
const zstd = soundZstd();

/** A decoder by the coding's name and the first byte of a body. */
const decoders = new Map<string, (first: number) => Transform>([
  ["gzip", () => zlib.createGunzip(options)],
  ["br", () => zlib.createBrotliDecompress(options)],
  // With the header of zlib, as specified, or without: clients never agreed on it.
  ["deflate", (first) => ((first & 15) === 8 ? zlib.createInflate(options) : zlib.createInflateRaw(options))],
  ...(zstd ? [["zstd", () => zstd.createZstdDecompress(options)] as const] : []),
]);

const known = [...decoders.keys()].join(", ");

/**
 * What takes a body's coding off; null for a body that is sent as it is.
 * Throws ApiError: 415 with `Accept-Encoding` for a coding that is not understood, and for several of them. Reading the
 * bytes throws `body_not_decodable`.
 */
export function bodyDecoding(request: HttpRequest): ((bytes: Bytes) => Bytes) | null {
  const named = request.header("content-encoding")?.trim().toLowerCase() ?? "";
  if (named === "" || named === "identity") return null;
  // two names of one coding (RFC 9110 §8.4.1.3)
  const createDecoder = decoders.get(named === "x-gzip" ? "gzip" : named);
  if (createDecoder) return (bytes) => decode(bytes, createDecoder);
  const message = `got a body in the content encoding ${named.slice(0, 80)}, expected one of ${known}, or none`;
  const headers = { "accept-encoding": known };
  throw new ApiError("invalid_request", "unsupported_content_encoding", message, { status: 415, headers });
}

async function* decode(bytes: Bytes, createDecoder: (first: number) => Transform): AsyncGenerator<Uint8Array> {
  const chunks = bytes[Symbol.asyncIterator]();
  let next = await chunks.next();
  while (!next.done && next.value.length === 0) next = await chunks.next();
  if (next.done) return;
  const decoder = createDecoder(next.value[0] as number);
  const all = async function* () {
    for (; !next.done; next = await chunks.next()) yield next.value;
  };
  pipeline(all, decoder, () => {}); // its error comes out of the decoder
  try {
    for await (const chunk of decoder) yield chunk;
  } catch (cause) {
    // what reading the body itself has thrown
    if (cause instanceof ApiError) throw cause;
    const message = "got a body that is damaged or incomplete: its content encoding cannot be taken off";
    throw new ApiError("invalid_request", "body_not_decodable", message, { cause });
  }
}
