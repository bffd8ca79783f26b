// Bodies as forms (RFC 7578), read as they come: one parser finds the parts and keeps the limits on them, and between
// two pieces of a large form others are served. Knows no field by name; what a file is called is of no interest.
// Clients disagree on nothing so much as on the line that names a part: quotes, order, capitals, spaces, `filename*`.

import { setImmediate as turnOfOthers } from "node:timers/promises";
import { MIMEType } from "node:util";
import { Dicer } from "@fastify/busboy";
import { ApiError } from "./api-error.js";
import { type BodyBytes, type HeldBytes, joined, type KeepHeld, withBody } from "./body.js";
import type { HttpRequest } from "./messages.js";

const maxFormParts = 64;
/** Most bytes and lines of a part's headers that are looked at; what is behind them counts as missing. */
const partHeaderLimits = { maxHeaderSize: 16 * 1024, maxHeaderPairs: 32 };
const maxPartNameLength = 200;
/** Most bytes of a part that is text; a file may be as large as a body. */
const maxFieldBytes = 1024 * 1024;
/** RFC 2046 §5.1.1; the time that the parser takes grows with it. */
const maxBoundaryLength = 70;
/** Bytes that are parsed before others get their turn. */
const parsedAtOnce = 64 * 1024;

/** A part of a form: text, or the bytes of a file. */
export type FormPart = { name: string; value: string | Buffer };

/**
 * Hands the parts of a `multipart/form-data` body to `use`, in their order; it counts as held until that is done, or for
 * as long as `use` says.
 * Throws ApiError: `invalid_form`, and what {@link withBody} refuses.
 */
export async function withForm<T>(
  request: HttpRequest,
  held: HeldBytes,
  use: (parts: FormPart[], keepHeld: KeepHeld) => Promise<T>,
): Promise<T> {
  const boundary = parseType(request.header("content-type") ?? "")?.params.get("boundary") ?? "";
  if (boundary === "" || boundary.length > maxBoundaryLength) {
    const message = `got a form whose boundary has ${boundary.length} characters, expected 1 to ${maxBoundaryLength}`;
    throw invalidForm(message);
  }
  return withBody(request, held, async (bytes) => readParts(await parse(bytes, boundary)), use);
}

function invalidForm(message: string): ApiError {
  return new ApiError("invalid_request", "invalid_form", message);
}

/** A part as it was sent; its head is missing until all its headers have come. */
type SentPart = { head: PartHead | null; chunks: Buffer[]; length: number };

/** Finds the parts. What the parser calls while it is given bytes may throw: that ends the parsing at once. */
async function parse(bytes: BodyBytes, boundary: string): Promise<SentPart[]> {
  const parts: SentPart[] = [];
  const ends: Promise<void>[] = [];
  let refusal: ApiError | null = null;
  let isComplete = false;
  const config = { boundary, ...partHeaderLimits };
  const parser = new Dicer(config);
  parser.on("part", (stream) => {
    if (parts.length === maxFormParts) throw invalidForm(`got a form of more than ${maxFormParts} parts: send fewer`);
    const part: SentPart = { head: null, chunks: [], length: 0 };
    parts.push(part);
    stream.on("header", (headers) => {
      part.head = readHead(headers as Record<string, string[]>);
    });
    // May be called later as well: then nobody would catch what it throws.
    stream.on("data", (chunk: Buffer) => {
      part.length += chunk.length;
      if (part.head?.isFile || part.length <= maxFieldBytes) part.chunks.push(chunk);
      else refusal ??= invalidForm(`got a text of more than ${maxFieldBytes} bytes in a form: send less`);
    });
    ends.push(new Promise((resolve) => stream.once("end", resolve)));
    stream.on("error", () => {}); // the parser itself says so
  });
  parser.on("finish", () => {
    isComplete = true;
  });
  const unreadable = "got a form that cannot be read, expected multipart/form-data with its boundary and last line";
  parser.on("error", (cause) => {
    refusal ??= new ApiError("invalid_request", "invalid_form", unreadable, { cause });
  });
  for await (const chunk of bytes) {
    for (let begin = 0; begin < chunk.length && !isComplete; begin += parsedAtOnce) {
      const piece = Buffer.from(chunk.buffer, chunk.byteOffset + begin, Math.min(parsedAtOnce, chunk.length - begin));
      await new Promise<unknown>((resolve) => parser.write(piece, resolve));
      if (refusal) throw refusal;
      await turnOfOthers();
    }
  }
  if (!isComplete) await new Promise((resolve) => parser.once("finish", resolve).end());
  if (refusal) throw refusal;
  await Promise.all(ends);
  return parts;
}

type PartHead = { name: string; isFile: boolean; isUnnamedFile: boolean; charset: string };

/** What the headers of a part say; they come as one character a byte. Throws ApiError. */
function readHead(headers: Record<string, string[]>): PartHead {
  // A disposition is spelled as a media type is but for its first word.
  const disposition = parseType(`multipart/${headers["content-disposition"]?.[0] ?? ""}`);
  const name = Buffer.from(disposition?.params.get("name") ?? "", "latin1").toString();
  if (disposition?.subtype !== "form-data" || name === "" || name.length > maxPartNameLength) {
    const wanted = `Content-Disposition: form-data; name="…", of at most ${maxPartNameLength} characters`;
    throw invalidForm(`got a part of a form without a name, expected ${wanted}`);
  }
  const encoding = headers["content-transfer-encoding"]?.[0]?.trim().toLowerCase() ?? "binary";
  if (!/^(7bit|8bit|binary)$/.test(encoding)) {
    throw invalidForm(`got a part of a form in ${encoding.slice(0, 40)}, expected the bytes as they are`);
  }
  const type = parseType(headers["content-type"]?.[0] ?? "");
  const fileName = disposition.params.get("filename*") ?? disposition.params.get("filename");
  return {
    name,
    isFile: fileName !== null || type?.type === "image" || type?.essence === "application/octet-stream",
    isUnnamedFile: fileName === "",
    charset: type?.params.get("charset") ?? "utf-8",
  };
}

/** A media type with its parameters, quoted or not; undefined for what is none. */
function parseType(text: string): MIMEType | undefined {
  try {
    return new MIMEType(text);
  } catch {
    return undefined;
  }
}

/** Parts as text and files. What a browser sends for a file that was not chosen is left out. Throws ApiError. */
async function readParts(sent: readonly SentPart[]): Promise<FormPart[]> {
  const parts: FormPart[] = [];
  for (const { head, chunks, length } of sent) {
    if (!head) throw invalidForm("got a part of a form whose headers do not end, expected an empty line after them");
    if (head.isUnnamedFile && length === 0) continue;
    const bytes = await joined(chunks);
    parts.push({ name: head.name, value: head.isFile ? bytes : decodeText(bytes, head) });
    await turnOfOthers();
  }
  return parts;
}

function decodeText(bytes: Buffer, { name, charset }: PartHead): string {
  try {
    return new TextDecoder(charset, { fatal: true }).decode(bytes);
  } catch (cause) {
    const message = `got a text in a form that is not in ${charset.slice(0, 40)}, expected UTF-8`;
    throw new ApiError("invalid_request", "invalid_form", message, { param: name, cause });
  }
}
