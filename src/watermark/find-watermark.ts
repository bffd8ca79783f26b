// Finds the watermark in a picture or a video, scaled, cropped, mirrored, turned a little or by quarters, compressed: the
// search over where the tile may lie, and what is told of the best place. Bounded: at most 2,400 places of one picture of at
// most 2048 × 2048 pixels and 104 of its half size are compared with a key, whatever the picture shows.

import type { RgbImage } from "../engine/images.js";
import { assert } from "../errors.js";
import { correlationOf, improved, likeliest, scales, turnsAndStretches } from "./likely.js";
import { defaultKey } from "./pattern.js";
import type { WatermarkPayload } from "./payload.js";
import { fold, type Matrix, type Plane, residualOf } from "./residual.js";
import {
  allOrientations,
  bestFit,
  type Fit,
  type Orientation,
  payloadAt,
  type TileReader,
  tileReader,
} from "./sync.js";

export type FindOptions = {
  /** Keys that the watermark may have been embedded with; default: the one that is in the source. */
  keys?: readonly number[];
};

export type FoundWatermark = {
  /** Whether z is at least 8.5. A picture that has none gets there in about 1 of 10⁷ cases for each key. */
  found: boolean;
  /** How well the best place fits, in standard deviations. */
  z: number;
  /** The key that fits best. */
  key: number;
  /** What the watermark says; undefined where it was found but cannot be read. */
  payload?: WatermarkPayload;
  /** How the picture was scaled since it was marked: the mean of both axes. */
  scale: number;
  /** By how much it was turned, clockwise, 0 … 360, after it was mirrored. */
  degrees: number;
  /** Whether left and right were exchanged. */
  mirrored: boolean;
};

/**
 * At most 2,500 pairs of matrix and orientation are compared with a key, 16 times as many can be reached by refining, each at
 * 16,384 shifts: 6.6·10⁸ · e^(−8.5² / 2) = 1.4·10⁻⁷. Whoever enlarges the search raises this by the same formula.
 */
const leastZ = 8.5;
/** The search ends where a place fits this well. */
const enoughZ = 12;
/** Where a place fits between these, scales beside it are tried as well. */
const refinedZ = [5, 16] as const;

const likelyScales = 12;
const likelyPlaces = 10;
/** Up to this side all scales are tried: a small picture holds too few tiles to tell its scale. */
const denseSide = 320;
/** From this side on the half size is looked at as well, where the picture was enlarged. */
const halvedSide = 512;

type Candidate = { matrix: Matrix; orientations: readonly Orientation[] };
type Place = { matrix: Matrix; fit: Fit };
/** Residuals of a picture, or added up over several: z does not depend on how large they are. */
type Residuals = { full: Plane; halved?: () => Plane };

/**
 * Looks for the watermark in a picture of any size, of which the middle 2048 × 2048 pixels are read (4096 × 4096 at half size).
 * Blocks: 20 to 340 ms at 256² to 2048² where it is found unscaled, 1 to 4 s where it is not found; takes at most 150 MB.
 */
export function findWatermark(image: RgbImage, { keys = [defaultKey] }: FindOptions = {}): FoundWatermark {
  checkImage(image);
  const halved = isHalvedToo(image) ? () => residualOf(image, true) : undefined;
  return search({ full: residualOf(image, false), halved }, tileReader(checkedKeys(keys)));
}

/**
 * Looks for the watermark in frames of one video: in the first by itself, then in the mean of the residuals of all. The others
 * are asked for only where the first does not tell; eight of them, spread over the video, are enough. As {@link findWatermark}
 * it blocks, twice as long at most, between frames that come later.
 */
export async function findWatermarkInFrames(
  frames: Iterable<RgbImage> | AsyncIterable<RgbImage>,
  { keys = [defaultKey] }: FindOptions = {},
): Promise<FoundWatermark> {
  const reader = tileReader(checkedKeys(keys));
  let sum: { full: Plane; halved?: Plane } | undefined;
  let first: FoundWatermark | undefined;
  let count = 0;
  for await (const frame of frames) {
    checkImage(frame);
    const full = residualOf(frame, false);
    const halved = isHalvedToo(frame) ? residualOf(frame, true) : undefined;
    count++;
    if (!sum) {
      first = search({ full, halved: halved && (() => halved) }, reader);
      if (first.found) return first;
      sum = { full, halved };
      continue;
    }
    add(sum.full, full);
    if (sum.halved && halved) add(sum.halved, halved);
  }
  assert(sum && first, "got no frame, expected at least one");
  if (count === 1) return first;
  const { full, halved } = sum;
  const mean = search({ full, halved: halved && (() => halved) }, reader);
  return mean.z > first.z ? mean : first;
}

function checkImage({ width, height, data }: RgbImage): void {
  assert(width > 0 && height > 0, `got a picture of ${width}×${height} pixels, expected at least one`);
  assert(data.length === width * height * 3, `got ${data.length} bytes for ${width}×${height} pixels, expected RGB`);
}

function checkedKeys(keys: readonly number[]): readonly number[] {
  assert(keys.length > 0, "got no key, expected at least one");
  return keys;
}

function isHalvedToo({ width, height }: RgbImage): boolean {
  return Math.min(width, height) >= halvedSide;
}

function add(sum: Plane, plane: Plane): void {
  const isSame = sum.width === plane.width && sum.height === plane.height;
  assert(
    isSame,
    `got frames of ${sum.width}×${sum.height} and ${plane.width}×${plane.height} pixels, expected one size`,
  );
  for (let i = 0; i < plane.values.length; i++) sum.values[i] = sum.values[i]! + plane.values[i]!;
}

function search({ full, halved }: Residuals, reader: TileReader): FoundWatermark {
  let [plane, factor] = [full, 1];
  let place = bestPlace(full, reader, Math.max(full.width, full.height) <= denseSide);
  if (place.fit.z < leastZ && halved) {
    const half = halved();
    const other = bestPlace(half, reader, false);
    if (other.fit.z > place.fit.z) [plane, factor, place] = [half, 2, other];
  }
  const { matrix, fit } = place;
  const found = fit.z >= leastZ;
  const payload = found ? payloadAt(reader, fold(plane, matrix), fit) : undefined;
  const scale = factor * Math.sqrt(matrix.a * matrix.d - matrix.b * matrix.c);
  return { found, z: fit.z, key: fit.key, payload, scale, ...turnOf(place) };
}

function bestPlace(plane: Plane, reader: TileReader, isDense: boolean): Place {
  let best: Place | undefined;
  for (const candidate of candidates(plane, isDense)) {
    const place = refined(plane, reader, candidate);
    if (!best || place.fit.z > best.fit.z) best = place;
    if (best.fit.z >= enoughZ) break;
  }
  return best!;
}

/** Where the tile may lie, the cheapest to know first. */
function* candidates(plane: Plane, isDense: boolean): Iterable<Candidate> {
  yield { matrix: { a: 1, b: 0, c: 0, d: 1 }, orientations: allOrientations };
  const correlation = correlationOf(plane);
  for (const matrix of likeliest(correlation, scales(0.35, 2.6, 0.002), likelyScales)) {
    yield { matrix, orientations: allOrientations };
  }
  if (isDense) {
    const step = 0.6 / Math.max(plane.width, plane.height);
    for (const matrix of scales(0.35, 2.6, step)) yield { matrix, orientations: [0, 1] };
  }
  for (const matrix of likeliest(correlation, turnsAndStretches(), likelyPlaces)) {
    yield { matrix: improved(correlation, matrix), orientations: allOrientations };
  }
}

/** The best fit of a candidate and, where it promises something, of scales beside it. */
function refined(plane: Plane, reader: TileReader, { matrix, orientations }: Candidate): Place {
  let best = { matrix, fit: bestFit(reader, fold(plane, matrix), orientations) };
  if (best.fit.z < refinedZ[0] || best.fit.z >= refinedZ[1]) return best;
  const side = Math.max(plane.width, plane.height);
  for (const step of [0.35 / side, 0.12 / side]) {
    const { matrix: centre, fit } = best;
    for (const k of [-4, -3, -2, -1, 1, 2, 3, 4]) {
      const near = scaled(centre, 1 + k * step);
      const other = bestFit(reader, fold(plane, near), [fit.orientation], [fit.key]);
      if (other.z > best.fit.z) best = { matrix: near, fit: other };
    }
  }
  return best;
}

function scaled({ a, b, c, d }: Matrix, factor: number): Matrix {
  return { a: a * factor, b: b * factor, c: c * factor, d: d * factor };
}

/** Where the key's x axis points in the picture; a mirrored one would point left. */
function turnOf({ matrix: { a, b, c, d }, fit: { orientation } }: Place): { degrees: number; mirrored: boolean } {
  const along = orientation & 1 ? -1 : 1;
  const [x, y] = orientation & 4 ? [0, along] : [along, 0];
  const mirrored = [1, 2, 4, 7].includes(orientation);
  const angle = (Math.atan2(c * x + d * y, a * x + b * y) * 180) / Math.PI;
  return { degrees: (angle + (mirrored ? 180 : 0) + 360) % 360, mirrored };
}
