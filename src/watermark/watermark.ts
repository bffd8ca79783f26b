// Adds the watermark to pictures: a periodic tile, stronger where a picture is restless, weaker where it is smooth. Frames of
// a video get it one by one, all the same tile. Works on a few rows at a time. Every pixel of the result is part of the
// mark's definition: tests compare all of them.

import type { RgbImage, Size } from "../engine/images.js";
import { assert } from "../errors.js";
import { defaultKey, tileOf, tileSide } from "./pattern.js";
import { bitsOfPayload, type WatermarkPayload } from "./payload.js";
import { boxMeans, lastRows, lumaRows, type Rows } from "./rows.js";

export type WatermarkOptions = {
  payload: WatermarkPayload;
  /** 32 bits; who finds the watermark needs the same. Default: the one that is in the source. */
  key?: number;
};

/** Deviation of the tile in levels of 255: what a smooth place gets, how it grows, and the most. */
const [leastStrength, strengthPerQuiet, mostStrength] = [0.9, 0.4, 5];
const detailRadius = 3;
const mostDetail = 16;
const activityRadius = 4;
/** How far from an edge, in pixels, the ground beside it counts as its own. */
const quietReach = 5;

/**
 * The same picture with a watermark: a picture of the same size whose values differ by a few levels. Below 128 pixels a side
 * it is rarely found again. Blocks for 50 to 90 ms a megapixel (a core of an AMD EPYC).
 */
export function embedWatermark(image: RgbImage, { payload, key = defaultKey }: WatermarkOptions): RgbImage {
  const { width, height, data } = image;
  assert(data.length === width * height * 3, `got ${data.length} bytes for ${width}×${height} pixels, expected RGB`);
  const tile = tileOf(key, bitsOfPayload(payload));
  const side = tileSide; // imported names cost a look-up in every pass where tests run the sources
  const quiet = quietRows(image, image);
  const marked = new Uint8ClampedArray(data.length); // rounds and clamps what is written
  let at = 0;
  for (let y = 0; y < height; y++) {
    const quietRow = quiet(y);
    const tileRow = (y % side) * side;
    for (let x = 0; x < width; x++, at += 3) {
      const strength = Math.min(mostStrength, leastStrength + strengthPerQuiet * quietRow[x]!);
      const added = strength * tile[tileRow + (x % side)]!;
      marked[at] = data[at]! + added;
      marked[at + 1] = data[at + 1]! + added;
      marked[at + 2] = data[at + 2]! + added;
    }
  }
  return { width, height, data: new Uint8Array(marked.buffer) };
}

/** The least activity at the four places (x ± 5, y ± 5): an edge must not raise the smooth ground beside it. */
function quietRows(image: RgbImage, size: Size): Rows {
  const { width } = size;
  const activity = lastRows(boxMeans(detailRows(image, size), size, activityRadius), size, 2 * quietReach + 1);
  const least = new Float64Array(width);
  const quiet = new Float64Array(width);
  return (y) => {
    const below = activity(y + quietReach);
    const above = activity(y - quietReach);
    for (let x = 0; x < width; x++) least[x] = Math.min(above[x]!, below[x]!);
    for (let x = 0; x < width; x++) {
      const left = least[Math.max(0, x - quietReach)]!;
      quiet[x] = Math.min(left, least[Math.min(width - 1, x + quietReach)]!);
    }
    return quiet;
  };
}

/** How far Y lies from the mean around it, at most {@link mostDetail}. */
function detailRows(image: RgbImage, size: Size): Rows {
  const luma = lumaRows(image);
  const means = boxMeans(lumaRows(image), size, detailRadius);
  const detail = new Float64Array(size.width);
  return (y) => {
    const [values, mean] = [luma(y), means(y)];
    for (let x = 0; x < size.width; x++) detail[x] = Math.min(mostDetail, Math.abs(values[x]! - mean[x]!));
    return detail;
  };
}
