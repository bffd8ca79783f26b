// Bytes out of texts: data: URIs (RFC 2397, as browsers read them) and base64 as programs write it: in one line or in
// many, percent-encoded where it went through a URL. Knows nothing of pictures.

import { setImmediate as turnOfOthers } from "node:timers/promises";
import { ApiError } from "../http/api-error.js";

/** Characters of what is percent-encoded: it is decoded byte by byte, while everybody waits. Whole pictures come in base64. */
const maxEscapedLength = 8 * 1024 * 1024;
/** Characters of base64 that are decoded before others get their turn: a millisecond or two. */
const decodedAtOnce = 1024 * 1024;

/** The bytes of a data: URI. Throws ApiError `reference_invalid`. */
export async function decodeDataUri(uri: string, param: string): Promise<Uint8Array> {
  const comma = uri.indexOf(",");
  if (comma < 0) throw invalid("got a data: URI without a comma, expected data:image/png;base64,…", param);
  const hash = uri.indexOf("#", comma);
  const data = uri.slice(comma + 1, hash < 0 ? undefined : hash);
  const isBase64 = /; *base64$/i.test(uri.slice(0, comma).trimEnd());
  if (!data.includes("%")) return isBase64 ? decodeBase64(data, param) : Buffer.from(data);
  if (data.length > maxEscapedLength) {
    const got = `got a percent-encoded data: URI of ${data.length} characters`;
    throw invalid(`${got}, expected at most ${maxEscapedLength}: send base64 as it is`, param);
  }
  const bytes = percentDecode(data);
  return isBase64 ? decodeBase64(bytes.toString("latin1"), param) : bytes;
}

/**
 * Bytes from base64, whose padding may be missing and whose lines may be broken. Others are served between two pieces of
 * a long text.
 * Throws ApiError `reference_invalid`.
 */
export async function decodeBase64(given: string, param: string): Promise<Uint8Array> {
  const text = given.trimEnd();
  const bytes = Buffer.allocUnsafe(Math.ceil((text.length * 3) / 4));
  let length = 0;
  let rest = "";
  for (let begin = 0; begin < text.length; begin += decodedAtOnce) {
    if (begin > 0) await turnOfOthers();
    const isLast = begin + decodedAtOnce >= text.length;
    const piece = rest + text.slice(begin, begin + decodedAtOnce).replaceAll(/[\t\n\f\r ]+/g, "");
    const whole = isLast ? piece : piece.slice(0, piece.length - (piece.length % 4));
    const decoded = bytes.write(whole, length, "base64");
    // The decoder leaves out what is no base64: then there are fewer bytes than the text's length says.
    if (decoded !== decodedLength(whole, isLast)) {
      const expected = "expected A–Z, a–z, 0–9, + and /, with or without line ends";
      throw invalid(`got image data that is not base64, ${expected}`, param);
    }
    length += decoded;
    rest = piece.slice(whole.length);
  }
  return bytes.subarray(0, length);
}

/** Padding belongs to the end alone. A single character more than fours is less than a byte: −1. */
function decodedLength(text: string, isLast: boolean): number {
  const padding = !isLast ? 0 : text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const characters = text.length - padding;
  return characters % 4 === 1 ? -1 : Math.floor((characters * 3) / 4);
}

/** Each %XX as the byte it names; a % that begins none stands for itself. */
function percentDecode(text: string): Buffer {
  const bytes = Buffer.from(text);
  let length = 0;
  for (let i = 0; i < bytes.length; i++) {
    const [high, low] = bytes[i] === percent ? [hexDigit(bytes[i + 1]), hexDigit(bytes[i + 2])] : [-1, -1];
    const isEscape = high >= 0 && low >= 0;
    bytes[length++] = isEscape ? high * 16 + low : (bytes[i] as number);
    if (isEscape) i += 2;
  }
  return bytes.subarray(0, length);
}

const percent = 0x25;

/** 0 to 15; −1 for what is no hexadecimal digit. */
function hexDigit(byte = 0): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte & ~0x20;
  return letter >= 0x41 && letter <= 0x46 ? letter - 0x41 + 10 : -1;
}

function invalid(message: string, param: string): ApiError {
  return new ApiError("invalid_request", "reference_invalid", message, { param });
}
