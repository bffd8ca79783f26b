// Request bodies as bytes, within limits that are applied while reading, not after. All requests of a server share
// a limit on the bytes that are held in memory; what comes above it is asked to come again.

import { ApiError } from "./api-error.js";
import { bodyDecoding } from "./codings.js";
import type { HttpRequest } from "./messages.js";

const maxBodyBytes = 100 * 1024 * 1024;
const maxHeldBytes = 512 * 1024 * 1024;
/** The longest that a whole body may take, however steadily it drips. */
const maxBody_ms = 300_000;

/** Bytes of all bodies of a server that are being read or worked on: at most 512 MiB. */
export type HeldBytes = { count: number };

/** Counts bytes as held. Throws ApiError `overloaded` when that makes too many; then none of these count. */
function hold(held: HeldBytes, bytes: number): void {
  if (held.count + bytes > maxHeldBytes) {
    throw new ApiError("overloaded", "too_many_bytes", "too many large requests at once: try again later", {
      headers: { "retry-after": "5" },
    });
  }
  held.count += bytes;
}

/** Counts a message's bytes as held until `work` is done. Throws ApiError `overloaded`. */
export async function whileHeld<T>(held: HeldBytes, bytes: number, work: () => Promise<T>): Promise<T> {
  hold(held, bytes);
  try {
    return await work();
  } finally {
    held.count -= bytes;
  }
}

/** Makes a body count as held for longer: until a promise that never rejects is fulfilled. */
export type KeepHeld = (until: Promise<unknown>) => void;

/** A body as it comes, its content coding taken off; everything is counted and limited before it is handed over. */
export type BodyBytes = AsyncIterable<Uint8Array>;

/**
 * Reads a body and hands what `read` makes of it to `use`. Its bytes count as held until `use` is done, or for as long
 * as that says.
 * Throws ApiError: `payload_too_large`, `overloaded`, `invalid_request` (incomplete, too slow, a content coding that is
 * not understood or not what the body is in).
 */
export async function withBody<B, T>(
  request: HttpRequest,
  held: HeldBytes,
  read: (bytes: BodyBytes) => Promise<B>,
  use: (body: B, keepHeld: KeepHeld) => Promise<T>,
): Promise<T> {
  let length = 0;
  let until: Promise<unknown> | undefined;
  const count = (bytes: number) => {
    hold(held, bytes);
    length += bytes;
  };
  try {
    // The bytes themselves are let go of before `use`, which may take long.
    const body = await read(bodyBytes(request, count));
    return await use(body, (promise) => {
      until = promise;
    });
  } finally {
    void Promise.resolve(until).then(() => {
      held.count -= length;
    });
  }
}

/** All bytes of a body. */
export async function wholeBody(bytes: BodyBytes): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return joined(chunks);
}

/** Bytes that are copied before others get their turn. */
const copiedAtOnce = 4 * 1024 * 1024;

/** Chunks as one; a large copy is made in pieces, others being served in between. */
export async function joined(chunks: readonly Uint8Array[]): Promise<Buffer> {
  const [only] = chunks;
  if (only && chunks.length === 1) return Buffer.from(only.buffer, only.byteOffset, only.length);
  const whole = Buffer.allocUnsafe(chunks.reduce((sum, { length }) => sum + length, 0));
  let end = 0;
  let copied = 0;
  for (const chunk of chunks) {
    whole.set(chunk, end);
    end += chunk.length;
    copied += chunk.length;
    if (copied < copiedAtOnce) continue;
    copied = 0;
    await new Promise(setImmediate);
  }
  return whole;
}

/** @param count is told of bytes before they are kept, and may refuse them */
async function* bodyBytes(request: HttpRequest, count: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  const decode = bodyDecoding(request);
  const announced = Number(request.header("content-length") ?? 0);
  if (announced > maxBodyBytes) throw tooLarge(`${announced}`);
  const bytes = receivedBytes(request);
  let length = 0;
  for await (const chunk of decode ? decode(bytes) : bytes) {
    count(chunk.length);
    length += chunk.length;
    if (length > maxBodyBytes) throw tooLarge(`more than ${maxBodyBytes}`);
    yield chunk;
  }
}

/** The bytes as they were sent. */
async function* receivedBytes(request: HttpRequest): AsyncGenerator<Uint8Array> {
  const deadline = performance.now() + maxBody_ms;
  let length = 0;
  try {
    for await (const chunk of request.body) {
      length += chunk.length;
      if (length > maxBodyBytes) throw tooLarge(`more than ${maxBodyBytes}`);
      if (performance.now() > deadline) {
        const message = `the body took more than ${maxBody_ms / 1000} seconds: send it faster`;
        throw new ApiError("invalid_request", "body_too_slow", message, { status: 408 });
      }
      yield chunk;
    }
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    throw new ApiError("invalid_request", "body_incomplete", "the body ended before it was complete", { cause });
  }
}

function tooLarge(got: string): ApiError {
  return new ApiError(
    "payload_too_large",
    "body_too_large",
    `got a body of ${got} bytes, at most ${maxBodyBytes} are allowed`,
  );
}

/** The type of a body, lower case and without parameters; "" if none is stated. */
export function mediaType(request: HttpRequest): string {
  return (request.header("content-type") ?? "").split(";")[0]!.trim().toLowerCase();
}

/** What a body of another type is refused with: status 415. */
export function unsupportedType(request: HttpRequest, expected: string): ApiError {
  const got = request.header("content-type");
  const message = `got ${got === undefined ? "no content type" : `the content type ${got.slice(0, 80)}`}, expected ${expected}`;
  return new ApiError("invalid_request", "unsupported_content_type", message, { status: 415 });
}
