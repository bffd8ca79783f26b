// What both listeners answer by themselves, so that a client cannot tell them apart: requests that no app should see,
// and answers that must not be written. Knows no socket.
// One request is smuggled within another by a body whose length two parties read differently (RFC 9112 §11.2).

import { STATUS_CODES } from "node:http";
import { ApiError, errorResponse } from "./api-error.js";
import { newId } from "./ids.js";
import type { HttpRequest, HttpResponse } from "./messages.js";

/** An answer whose body is already there. */
export type PlainResponse = HttpResponse & { body: string };

/** A request that is refused before any route sees it. */
export function refusal(status: number, code: string, message: string): PlainResponse {
  const headers = { "x-request-id": newId("req") };
  return errorResponse(new ApiError("invalid_request", code, message, { status, headers })) as PlainResponse;
}

/** Instead of an answer that could not be written, or that an app failed to give. */
export const internalErrorAnswer = errorResponse(
  new ApiError("server_error", "internal_error", "the server failed in a way that nobody foresaw; see its log"),
) as PlainResponse;

/** What is wrong with how a request states its body's length; null if nothing is. */
export function bodyLengthRefusal(
  contentLength: string | undefined,
  transferEncoding: string | undefined,
): PlainResponse | null {
  if (transferEncoding !== undefined) {
    if (contentLength !== undefined) {
      return refusal(400, "bad_request", "got Content-Length and Transfer-Encoding, expected one of them");
    }
    if (transferEncoding.toLowerCase() === "chunked") return null;
    return refusal(400, "bad_request", "got another Transfer-Encoding than chunked: send the body as it is");
  }
  if (contentLength === undefined || /^[0-9]{1,15}$/.test(contentLength)) return null;
  return refusal(400, "bad_request", "got a Content-Length that is no single number");
}

/** What is wrong with a WebSocket handshake (RFC 6455 §4.2.1); null if nothing is. */
export function handshakeRefusal(request: HttpRequest): PlainResponse | null {
  if (!/^[+/0-9A-Za-z]{22}==$/.test(request.header("sec-websocket-key") ?? "")) {
    return refusal(400, "bad_handshake", "got no valid Sec-WebSocket-Key, expected 16 bytes in base64");
  }
  if (request.header("sec-websocket-version") === "13") return null;
  const answer = refusal(426, "bad_handshake", "got another Sec-WebSocket-Version than 13: upgrade to that one");
  return { ...answer, headers: { ...answer.headers, "sec-websocket-version": "13", upgrade: "websocket" } };
}

const statusLines = new Map(Object.entries(STATUS_CODES).map(([code, text]) => [Number(code), `${code} ${text}`]));

/** Such as `404 Not Found`. */
export function statusLine(status: number): string {
  return statusLines.get(status) ?? `${status} Unknown`;
}

/** Whether an answer of this status ends with its headers, whatever body it was given. */
export function isBodiless(status: number): boolean {
  return status === 204 || status === 304;
}

/** Tells a body that nobody will read it. */
export async function abandon(items: AsyncIterable<unknown>): Promise<void> {
  await Promise.resolve(items[Symbol.asyncIterator]().return?.()).catch(() => {});
}

type Items = AsyncIterable<string | Uint8Array>;

/** An answer to write, its body there as a whole or still to come. One that must not be written becomes a 500. */
export function writable(response: HttpResponse): {
  response: HttpResponse;
  whole: string | Uint8Array | null;
  items: Items | null;
} {
  const { body } = response;
  const whole = body === null ? "" : typeof body === "string" || body instanceof Uint8Array ? body : null;
  const items = whole === null ? (body as Items) : null;
  try {
    checkHead(response);
    return { response, whole, items };
  } catch {
    if (items) void abandon(items);
    return { response: internalErrorAnswer, whole: internalErrorAnswer.body, items: null };
  }
}

/**
 * Throws TypeError for an answer that must not be written. A line break within a header would let whoever chose the
 * value write headers of their own, or a whole answer.
 */
function checkHead({ status, headers }: HttpResponse): void {
  if (!(status >= 200 && status <= 599)) throw new TypeError(`got status ${status}, expected 200 to 599`);
  for (const name in headers) {
    if (!/^[a-z0-9-]+$/.test(name)) throw new TypeError(`got ${JSON.stringify(name)} as the name of a header`);
    const value = headers[name] as string;
    if (!/^[\t\x20-\x7e]*$/.test(value)) throw new TypeError(`got other bytes than printable ASCII in header ${name}`);
  }
}

/** As much of a reason as a WebSocket's close frame has room for: 123 bytes, whole characters. */
export function closeReason(reason: string): string {
  let text = reason;
  while (Buffer.byteLength(text) > 123) text = text.slice(0, -1);
  return text;
}
