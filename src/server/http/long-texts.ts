// Takes the long strings out of a JSON text and reads them piece by piece, others being served in between: parsed at
// once, a picture of a hundred MiB in base64 would keep everybody waiting for half a second. What is left is short.
// Counts the values on the way, without making anything of them.

import { setImmediate as turnOfOthers } from "node:timers/promises";
import { ApiError } from "./api-error.js";
import { newId } from "./ids.js";

/** Members and elements of a body: a hundred MiB of empty objects would take gigabytes, and minutes to judge. */
const maxJsonValues = 20_000;
/** Bytes of a string that is not taken out. */
const maxShortBytes = 1024;
/** Bytes of all that is not taken out, white space included. */
const maxRestBytes = 8 * 1024 * 1024;
/** Bytes of a string that are read at once. */
const pieceBytes = 256 * 1024;
/** Bytes that are looked at before others get their turn. */
const turnBytes = 1024 * 1024;

const [quote, backslash, comma, bracket, brace, colon, space, letterU] = Buffer.from('"\\,[{: u');
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A JSON text whose long strings have been replaced by short ones, and what each of these stands for. */
export type ShortenedJson = { text: string; longTexts: Map<string, string> };

/**
 * Reads UTF-8. What is no JSON may stay in the text, for the parser to complain of.
 * Throws ApiError: `too_many_values`, `name_too_long`, `body_too_large` for what no client means; SyntaxError and
 * TypeError for strings and bytes that are wrong.
 */
export async function takeOutLongTexts(json: Buffer): Promise<ShortenedJson> {
  const longTexts = new Map<string, string>();
  const mark = newId("text"); // nobody can guess it
  const rest: Buffer[] = [];
  let restBegin = 0;
  let takenOut = 0;
  let values = 0;
  let isBehindText = false;
  let nextTurn = turnBytes;
  for (let i = 0; i < json.length; i++) {
    if (i >= nextTurn) {
      if (i - takenOut > maxRestBytes) throw tooMuchRest();
      await turnOfOthers();
      nextTurn = i + turnBytes;
    }
    const byte = json[i] as number;
    if (byte <= (space as number)) continue;
    if (byte === comma || byte === bracket || byte === brace) {
      if (++values > maxJsonValues) throw tooManyValues();
    } else if (byte === colon && isBehindText) {
      throw nameTooLong();
    }
    isBehindText = false;
    if (byte !== quote) continue;
    const begin = i + 1;
    let pieces = "";
    let pieceBegin = begin;
    for (;;) {
      i = pieceEnd(json, pieceBegin);
      if (i >= json.length || json[i] === quote) break;
      pieces += readPiece(json, pieceBegin, i);
      pieceBegin = i;
      await turnOfOthers();
      nextTurn = i + turnBytes;
    }
    if (i - begin <= maxShortBytes) continue;
    if (i >= json.length) throw new SyntaxError("got a string without an end");
    const name = `${mark}.${longTexts.size}`;
    longTexts.set(name, pieces + readPiece(json, pieceBegin, i));
    rest.push(json.subarray(restBegin, begin), Buffer.from(name));
    restBegin = i;
    takenOut += i - begin;
    isBehindText = true;
  }
  if (json.length - takenOut > maxRestBytes) throw tooMuchRest();
  rest.push(json.subarray(restBegin));
  return { text: utf8.decode(rest.length === 1 ? rest[0] : Buffer.concat(rest)), longTexts };
}

/** Where a piece of a string ends: at the closing quote, or between two characters when it is long enough. */
function pieceEnd(json: Buffer, begin: number): number {
  const enough = begin + pieceBytes;
  let i = begin;
  while (i < json.length) {
    const byte = json[i] as number;
    if (byte === quote || (i >= enough && (byte & 0xc0) !== 0x80)) break;
    i += byte !== backslash ? 1 : json[i + 1] === letterU ? 6 : 2;
  }
  return i;
}

function readPiece(json: Buffer, begin: number, end: number): string {
  return JSON.parse(`"${utf8.decode(json.subarray(begin, end))}"`);
}

function tooManyValues(): ApiError {
  const message = `got a body of more than ${maxJsonValues} members and elements: send fewer`;
  return new ApiError("invalid_request", "too_many_values", message);
}

function nameTooLong(): ApiError {
  const message = `got a body with a member whose name has more than ${maxShortBytes} bytes: leave it out`;
  return new ApiError("invalid_request", "name_too_long", message);
}

function tooMuchRest(): ApiError {
  const message = `got a body of more than ${maxRestBytes} bytes besides its long texts: send less`;
  return new ApiError("payload_too_large", "body_too_large", message);
}
