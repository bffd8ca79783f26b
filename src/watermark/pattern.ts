// What a key and a payload make: the bins of the spectrum with their phases, and the tile that is added to pictures.
// Embedding and finding both start here, and every number is the mark's definition: change one, and no file marked before is
// found. Knows no picture.

import { assert } from "../errors.js";
import { makeGrid, transform } from "./fft.js";
import { symbolsOf } from "./payload.js";

/** The side of the tile, in pixels. */
export const tileSide = 128;
/** The key that is used where none is named; public, as the source is. */
export const defaultKey = 0x44415942;

/** Bins are those with 34 ≤ u² + v² ≤ 792: periods of 22 to 4.5 pixels, which survive scaling and compression. */
const [innermost, outermost] = [34, 792];
/** The largest |u| and |v| of a bin: √792 is below 29. */
export const reach = 28;

/** The part of the pattern that carries no payload. */
export const syncPart = -1;
/** A symbol's shifts: 32 × 32 of them, 4 pixels apart. */
export const shiftsPerSide = 32;
export const shiftStep = tileSide / shiftsPerSide;

/** Half the plane of the spectrum, v ascending, then u ascending; the other half mirrors it, as in all real pictures. */
export type Bin = {
  u: number;
  v: number;
  /** In radians, below 2π. */
  phase: number;
  /** {@link syncPart}, or which symbol moves it: 0 … 3. */
  part: number;
};

/** Draws of mulberry32 seeded with a key, as unsigned 32-bit integers. */
function drawsOf(key: number): () => number {
  let state = key;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** The 1188 bins of a key. */
export function binsOf(key: number): Bin[] {
  assert(Number.isInteger(key) && key >= 0 && key < 2 ** 32, `got the key ${key}, expected an integer of 32 bits`);
  const draw = drawsOf(key);
  const bins: Bin[] = [];
  for (let v = 0; v < tileSide / 2; v++) {
    for (let u = v === 0 ? 1 : 1 - tileSide / 2; u < tileSide / 2; u++) {
      if (u * u + v * v < innermost || u * u + v * v > outermost) continue;
      const phase = (draw() / 2 ** 32) * 2 * Math.PI;
      bins.push({ u, v, phase, part: Math.max(syncPart, (draw() >>> 29) - 4) });
    }
  }
  return bins;
}

/** Tiles that were made, the newest last. A program needs one for each kind of picture that it draws. */
const tiles = new Map<string, Float64Array>();
const keptTiles = 8;

/** The pattern of a key and 32 bits of payload, [128, 128], with a mean of 0 and a standard deviation of 1. Made once. */
export function tileOf(key: number, bits: number): Float64Array {
  const symbols = symbolsOf(bits);
  const name = `${key} ${bits}`;
  const known = tiles.get(name);
  if (known) return known;
  const grid = makeGrid(tileSide, tileSide);
  for (const { u, v, phase, part } of binsOf(key)) {
    const symbol = part === syncPart ? 0 : symbols[part]!;
    const dx = shiftStep * (symbol % shiftsPerSide);
    const dy = shiftStep * Math.floor(symbol / shiftsPerSide);
    const turned = phase - ((2 * Math.PI) / tileSide) * (u * dx + v * dy);
    const amplitude = (u * u + v * v) ** -0.25;
    // At (v, u), not (u, v): the transform leaves its result transposed.
    const at = (u & (tileSide - 1)) * tileSide + v;
    grid.re[at] = amplitude * Math.cos(turned);
    grid.im[at] = amplitude * Math.sin(turned);
  }
  const tile = makeGrid(tileSide, tileSide);
  transform(grid, tile, 1);
  const deviation = Math.sqrt(tile.re.reduce((sum, value) => sum + value * value, 0) / tile.re.length);
  const normalised = tile.re.map((value) => value / deviation);
  if (tiles.size >= keptTiles) tiles.delete(tiles.keys().next().value as string);
  tiles.set(name, normalised);
  return normalised;
}
