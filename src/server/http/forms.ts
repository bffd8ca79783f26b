// Bodies as forms, their parts counted before they are parsed.

import { ApiError } from "./api-error.js";
import { type HeldBytes, type KeepHeld, withBody } from "./body.js";
import type { HttpRequest } from "./messages.js";

/** The parser's time grows with the number of parts. */
const maxFormParts = 64;

/**
 * Hands a form as `multipart/form-data` to `use`; it counts as held until that is done, or for as long as `use` says.
 * Throws ApiError.
 */
export async function withForm<T>(
  request: HttpRequest,
  held: HeldBytes,
  use: (form: FormData, keepHeld: KeepHeld) => Promise<T>,
): Promise<T> {
  const type = request.header("content-type") ?? "";
  return withBody(request, held, (bytes) => parseForm(bytes, type), use);
}

async function parseForm(bytes: Buffer, type: string): Promise<FormData> {
  const boundary = /boundary="?([^";]+)/i.exec(type)?.[1];
  let parts = -1; // the last line is no part
  if (boundary !== undefined) {
    for (let at = bytes.indexOf(`--${boundary}`); at >= 0 && parts <= maxFormParts; parts++) {
      at = bytes.indexOf(`--${boundary}`, at + boundary.length + 2);
    }
  }
  if (parts > maxFormParts) {
    const message = `got a form of more than ${maxFormParts} parts: send fewer`;
    throw new ApiError("invalid_request", "invalid_form", message);
  }
  try {
    return await new Response(bytes as Uint8Array<ArrayBuffer>, { headers: { "content-type": type } }).formData();
  } catch (cause) {
    const message = "got a form that cannot be read, expected multipart/form-data with its boundary and last line";
    throw new ApiError("invalid_request", "invalid_form", message, { cause });
  }
}
