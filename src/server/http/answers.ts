// What the answers of several routes are made of. Knows no route.

import type { HttpResponse } from "./messages.js";

/** An answer in JSON. */
export function json(value: unknown, status = 200): HttpResponse {
  return { status, headers: { "content-type": "application/json; charset=utf-8" }, body: JSON.stringify(value) };
}

/** The time as JSON bodies say it. */
export function unixSeconds(): number {
  return Math.floor(Date.now() / 1000);
}

export function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
