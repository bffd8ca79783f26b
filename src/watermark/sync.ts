// Compares a folded picture with a key's phases: how well it fits in each of eight orientations and at every shift, and which
// payload it carries there. A picture that does not know the key has phases that are independent of it and uniform, whatever
// it shows: each value z is at least t with a probability of at most e^(−t²/2).

import { type Grid, makeGrid, transformReal, transformRows, transpose } from "./fft.js";
import { binsOf, reach, shiftStep, shiftsPerSide, syncPart, tileSide } from "./pattern.js";
import { bitsOfSymbols, payloadOfBits, symbolCount, type WatermarkPayload } from "./payload.js";

/** How a key's pattern lies in a tile: 1 u mirrored, 2 v mirrored, then 4 the axes exchanged. */
export type Orientation = number;
export const allOrientations: readonly Orientation[] = [0, 1, 2, 3, 4, 5, 6, 7];

/** The best fit of a tile: its z, and where it is. */
export type Fit = { z: number; key: number; orientation: Orientation; dx: number; dy: number };

/** Bins of one part of a key, and where they lie in the grids of a {@link TileReader} in one orientation. */
type Comparison = {
  key: number;
  orientation: Orientation;
  count: number;
  u: Int32Array;
  v: Int32Array;
  cos: Float64Array;
  sin: Float64Array;
  /** Where the spectrum has a bin: in rows u ≥ 0, else mirrored, where it is the conjugate (−1). */
  source: Int32Array;
  conjugate: Int8Array;
  /** Where a bin and its mirror image are asked for. */
  target: Int32Array;
  mirrored: Int32Array;
};

/** What is compared, and how far the pattern is known to be shifted. */
type Question = { comparison: Comparison; dx: number; dy: number };

type Answer = { z: number; x: number; y: number };

/** {@link tileSide}: imported names cost a look-up in every pass of a loop where tests run the sources. */
const side = tileSide;
const mask = side - 1;
/** A symbol that fits worse is not read. */
const leastSymbolFit = 4;

/** What comparing needs of a few keys, and the memory that it works in. */
export type TileReader = {
  keys: readonly number[];
  /** By key, part and orientation, each made when it is first asked for. */
  comparisons: Map<string, Comparison>;
  /** The spectrum of the tile that is looked at, transposed: row u holds all v. Only the rows 0 … 28 are made. */
  spectrum: Grid;
  /** Rows 29 … 99 stay zero. */
  asked: Grid;
  fits: Grid;
};

export function tileReader(keys: readonly number[]): TileReader {
  const grid = () => makeGrid(side, side);
  const grids = { spectrum: grid(), asked: grid(), fits: grid() };
  const reader = { keys: [...new Set(keys)], comparisons: new Map<string, Comparison>(), ...grids };
  for (const key of reader.keys) comparisonOf(reader, key, syncPart, 0);
  return reader;
}

function comparisonOf({ comparisons }: TileReader, key: number, part: number, orientation: Orientation): Comparison {
  const name = `${key} ${part} ${orientation}`;
  const known = comparisons.get(name);
  if (known) return known;
  const bins = binsOf(key).filter((bin) => bin.part === part);
  const places = bins.map(({ u, v }) => oriented(u, v, orientation));
  const made = {
    key,
    orientation,
    count: bins.length,
    u: Int32Array.from(bins, ({ u }) => u),
    v: Int32Array.from(bins, ({ v }) => v),
    cos: Float64Array.from(bins, ({ phase }) => Math.cos(phase)),
    sin: Float64Array.from(bins, ({ phase }) => Math.sin(phase)),
    source: Int32Array.from(places, ([u, v]) => (u < 0 ? placeOf(-u, -v) : placeOf(u, v))),
    conjugate: Int8Array.from(places, ([u]) => (u < 0 ? -1 : 1)),
    target: Int32Array.from(bins, ({ u, v }) => placeOf(u, v)),
    mirrored: Int32Array.from(bins, ({ u, v }) => placeOf(-u, -v)),
  };
  comparisons.set(name, made);
  return made;
}

/** Where a tile that lies in an orientation has the bin (u, v) of the key. */
function oriented(u: number, v: number, orientation: Orientation): [u: number, v: number] {
  const first = orientation & 1 ? -u : u;
  const second = orientation & 2 ? -v : v;
  return orientation & 4 ? [second, first] : [first, second];
}

/** Where a transposed grid has (u, v). */
function placeOf(u: number, v: number): number {
  return (u & mask) * side + (v & mask);
}

/** The best fit of all shifts in some orientations, of all keys or of the one that is named. */
export function bestFit(
  reader: TileReader,
  tile: Float64Array,
  orientations: readonly Orientation[] = allOrientations,
  keys: readonly number[] = reader.keys,
): Fit {
  transformReal(tile, reader.spectrum, reach + 1);
  let best: Fit = { z: -Infinity, key: keys[0]!, orientation: 0, dx: 0, dy: 0 };
  const questions = keys.flatMap((key) =>
    orientations.map((orientation) => ({ comparison: comparisonOf(reader, key, syncPart, orientation), dx: 0, dy: 0 })),
  );
  for (let i = 0; i < questions.length; i += 2) {
    const pair = questions.slice(i, i + 2);
    for (const [which, { z, x, y }] of answer(reader, pair, 1).entries()) {
      const { key, orientation } = pair[which]!.comparison;
      if (z > best.z) best = { z, key, orientation, dx: x, dy: y };
    }
  }
  return best;
}

/** What a tile says where it fits; undefined where its symbols fit badly or their CRC does not. */
export function payloadAt(reader: TileReader, tile: Float64Array, fit: Fit): WatermarkPayload | undefined {
  transformReal(tile, reader.spectrum, reach + 1);
  const { key, orientation, dx, dy } = fit;
  const questions = Array.from({ length: symbolCount }, (_, part) => ({
    comparison: comparisonOf(reader, key, part, orientation),
    dx,
    dy,
  }));
  const answers = [0, 2].flatMap((first) => answer(reader, questions.slice(first, first + 2), shiftStep));
  if (answers.some(({ z }) => z < leastSymbolFit)) return undefined;
  const bits = bitsOfSymbols(answers.map(({ x, y }) => (y / shiftStep) * shiftsPerSide + x / shiftStep));
  return bits === undefined ? undefined : payloadOfBits(bits);
}

/**
 * The best z of one or two questions, among the shifts that are multiples of `step`, and that shift. One inverse transform
 * gives all shifts of both: what it makes of the first is real, of the second imaginary.
 */
function answer(reader: TileReader, questions: readonly Question[], step: number): Answer[] {
  const { asked, fits } = reader;
  for (let u = -reach; u <= reach; u++) {
    const { re, im } = asked.rows[u & mask]!;
    re.fill(0);
    im.fill(0);
  }
  const norms = questions.map((question, which) => ask(reader, question, which));
  transformRows(asked, 1, 0, reach + 1);
  transformRows(asked, 1, side - reach, side);
  transpose(asked, fits);
  for (let y = 0; y < side; y += step) transformRows(fits, 1, y, y + 1);
  return norms.map((norm, which) => {
    const { most, x, y } = mostOf(which === 0 ? fits.re : fits.im, step);
    return { z: norm > 0 ? most / norm : 0, x, y };
  });
}

/**
 * Adds one question's terms S = √|c| · c/|c|, c = T(u, v)·e^(−iφ), to the spectrum whose inverse transform holds
 * Re Σ S·e^(2πi(u·dx + v·dy)/128), times i for the second question. Returns √(Σ|c| / 2).
 */
function ask({ spectrum, asked }: TileReader, { comparison, dx, dy }: Question, which: number): number {
  const { count, u, v, cos, sin, source, conjugate, target, mirrored } = comparison;
  const turn = (2 * Math.PI) / side;
  let weight = 0;
  for (let i = 0; i < count; i++) {
    const re = spectrum.re[source[i]!]!;
    const im = spectrum.im[source[i]!]! * conjugate[i]!;
    const size = Math.sqrt(re * re + im * im);
    if (size === 0) continue;
    weight += size;
    const half = 0.5 / Math.sqrt(size);
    let real = (re * cos[i]! + im * sin[i]!) * half;
    let imaginary = (im * cos[i]! - re * sin[i]!) * half;
    if (dx !== 0 || dy !== 0) {
      const angle = turn * (u[i]! * dx + v[i]! * dy);
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      [real, imaginary] = [real * c - imaginary * s, real * s + imaginary * c];
    }
    const [one, other] = [target[i]!, mirrored[i]!];
    // S / 2 and its conjugate, or i times each.
    asked.re[one] = asked.re[one]! + (which === 0 ? real : -imaginary);
    asked.im[one] = asked.im[one]! + (which === 0 ? imaginary : real);
    asked.re[other] = asked.re[other]! + (which === 0 ? real : imaginary);
    asked.im[other] = asked.im[other]! + (which === 0 ? -imaginary : real);
  }
  return Math.sqrt(weight / 2);
}

function mostOf(values: Float64Array, step: number): { most: number; x: number; y: number } {
  let most = -Infinity;
  let place = 0;
  for (let y = 0; y < side; y += step) {
    for (let x = 0; x < side; x += step) {
      const value = values[y * side + x]!;
      if (value <= most) continue;
      most = value;
      place = y * side + x;
    }
  }
  return { most, x: place % side, y: Math.floor(place / side) };
}
