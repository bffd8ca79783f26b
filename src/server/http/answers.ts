// What the answers of several routes are made of. Knows no route.

import type { HttpResponse } from "./messages.js";

/** Of every answer in JSON, errors included: prompts and answers are nobody else's, so no cache on the way keeps them. */
export const jsonHeaders = {
  "content-type": "application/json; charset=utf-8",
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
} as const;

/** An answer in JSON. */
export function json(value: unknown, status = 200): HttpResponse {
  return { status, headers: jsonHeaders, body: JSON.stringify(value) };
}

/** The time as JSON bodies say it. */
export function unixSeconds(): number {
  return Math.floor(Date.now() / 1000);
}

export function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
