// What a watermark says, in 32 bits, and those bits as the symbols that a tile holds. A CRC tells symbols that were read from
// those that were guessed. Knows no picture and no pattern.

import { assert } from "../errors.js";

/** What a picture was made from, or that it is a frame of a video. */
export type WatermarkKind = "text" | "references" | "video";

/** How a picture was drawn, and a number of whoever runs the program, 0 … 2²⁴ − 1. */
export type WatermarkPayload = { kind: WatermarkKind; id: number };

/** Counted from 1. */
const kinds: readonly WatermarkKind[] = ["text", "references", "video"];
const version = 0;
const mostId = 2 ** 24 - 1;

export const symbolCount = 4;
const valuesPerSymbol = 1024;

/** Kind (bits 31–28), version (27–24), id (23–0). */
export function bitsOfPayload({ kind, id }: WatermarkPayload): number {
  assert(kinds.includes(kind), `got the kind ${JSON.stringify(kind)}, expected one of ${kinds.join(", ")}`);
  assert(Number.isInteger(id) && id >= 0 && id <= mostId, `got the id ${id}, expected an integer from 0 to ${mostId}`);
  return (kinds.indexOf(kind) + 1) * 2 ** 28 + version * 2 ** 24 + id;
}

/** The payload of 32 bits; undefined where they are of another version than this one. */
export function payloadOfBits(bits: number): WatermarkPayload | undefined {
  const kind = kinds[(bits >>> 28) - 1];
  return kind && ((bits >>> 24) & 15) === version ? { kind, id: bits & mostId } : undefined;
}

/** 32 bits and their CRC as four symbols of 10 bits, high bits first. */
export function symbolsOf(bits: number): number[] {
  const word = bits * 256 + crc8(bits);
  return Array.from(
    { length: symbolCount },
    (_, i) => Math.floor(word / valuesPerSymbol ** (symbolCount - 1 - i)) % valuesPerSymbol,
  );
}

/** What {@link symbolsOf} made symbols of; undefined where the CRC does not fit. */
export function bitsOfSymbols(symbols: readonly number[]): number | undefined {
  const word = symbols.reduce((sum, symbol) => sum * valuesPerSymbol + symbol, 0);
  const bits = Math.floor(word / 256);
  return crc8(bits) === word % 256 ? bits : undefined;
}

/** CRC-8 of four bytes, high byte first: polynomial x⁸ + x² + x + 1, start 0. */
function crc8(bits: number): number {
  let crc = 0;
  for (let shift = 24; shift >= 0; shift -= 8) {
    crc ^= (bits >>> shift) & 255;
    for (let bit = 0; bit < 8; bit++) crc = crc & 128 ? ((crc << 1) ^ 7) & 255 : crc << 1;
  }
  return crc;
}
