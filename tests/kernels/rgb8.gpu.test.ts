// rgb8 against the reference's postprocessing in f32 steps: the bytes are equal, ties included.

import { describe, expect, test } from "vitest";
import { rgb8 } from "../../src/engine/ops/pixels.js";
import { benches, firstDifference, normal, runRecorded } from "./reference.js";

const cases = [{ pixels: 256 }, { pixels: 768 }, { pixels: 256 * 33 }, { pixels: 256 * 80 }];

/** (x·0.5 + 0.5) clamped, then ·255 rounded half to even, every step in f32. */
function byteOf(x: number): number {
  const unit = Math.min(1, Math.max(0, Math.fround(Math.fround(x * 0.5) + 0.5)));
  const scaled = Math.fround(unit * 255);
  const floor = Math.floor(scaled);
  const isUp = scaled - floor > 0.5 || (scaled - floor === 0.5 && floor % 2 === 1);
  return isUp ? floor + 1 : floor;
}

/** Values of x whose bytes lie exactly between two: x·0.5 + 0.5 = (n + 0.5)/255 where that product is exact in f32. */
function ties(): number[] {
  const found: number[] = [];
  for (let n = 0; n < 255; n++) {
    const x = Math.fround((2 * (n + 0.5)) / 255 - 1);
    if (Math.fround(Math.fround(Math.fround(x * 0.5) + 0.5) * 255) === n + 0.5) found.push(x);
  }
  return found;
}

describe.each(benches)("rgb8 on $on", ({ open }) => {
  test.each(cases)("$pixels pixels", async ({ pixels }) => {
    const x = normal(1, pixels * 3, 0, 0.7);
    x.set([-1, 0, 1, -1e30, 1e30, 3]);
    const halfway = ties();
    expect(halfway.length).toBeGreaterThan(100);
    x.set(halfway.slice(0, 3 * 256 - 6), 6);
    const { y } = await runRecorded(await open(), (recorder, inputs) => ({
      y: rgb8(recorder, inputs.tensor("x", pixels, 3, x, { rowsBefore: 3, rowsAfter: 1 })),
    }));
    expect(firstDifference(new Uint8Array(y.words.buffer), Uint8Array.from(x, byteOf))).toBeUndefined();
  });
});
