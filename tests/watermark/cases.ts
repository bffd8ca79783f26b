// The vectors of the watermark and the pictures that they speak of: pictures, the same ones marked by another implementation,
// and the marked ones treated as pictures are on their way. cases/ holds those that are found soon: searching everywhere takes
// seconds.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { RgbImage } from "../../src/engine/images.js";
import { decodeImage } from "../../src/media/images.js";
import type { WatermarkKind, WatermarkPayload } from "../../src/watermark/payload.js";

const folder = fileURLToPath(new URL("cases", import.meta.url));

type Case = {
  file: string;
  found: boolean;
  /** Hexadecimal; null where none is read. */
  payload: string | null;
  z: number;
  scale: number;
  orientation: number;
  embedded?: string;
  /** The picture that was marked. */
  from?: string;
};

export const vectors: {
  key: string;
  draws: number[];
  bins: number;
  "bins of sync and of each symbol": number[];
  "first bins [u, v, phase, part]": number[][];
  crc8: Record<string, string>;
  "symbols of 0x20abcdef": number[];
  "tile of 0x10000000": Record<"row 0, columns 0..7" | "row 77, columns 120..127", number[]> & {
    min: number;
    max: number;
  };
  files: Case[];
} = JSON.parse(readFileSync(join(folder, "watermark.json"), "utf8"));

/** The pictures at hand, as the vectors list them. */
export const pictures = vectors.files.filter(({ file }) => existsSync(join(folder, file)));

export async function picture(file: string): Promise<RgbImage> {
  return decodeImage(readFileSync(join(folder, file)));
}

/** The payload that 32 bits in hexadecimal stand for, read without the program's help. */
export function payloadOfHex(hex: string): WatermarkPayload {
  const bits = Number(hex);
  const kinds: Record<number, WatermarkKind> = { 1: "text", 2: "references", 3: "video" };
  return { kind: kinds[Math.floor(bits / 2 ** 28)]!, id: bits % 2 ** 24 };
}

/** Numbers 0 … 1 that are the same in every run. */
export function numbersFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
