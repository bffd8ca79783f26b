// The health of a stage's result: how many values are not finite, the least and the greatest. A wrong picture is an
// error, so the host judges these few words before it goes on. Values are examined as bits, because a WGSL compiler may
// assume that NaN does not exist.

import { assert, DaybreakError } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";
import { bands, foldWorkgroups, rowsPerBinding, rowWorkgroup } from "./cut.js";

/** Words that a slot of a health tensor takes: not finite, least, greatest (ordered bits), values, and four zeros. */
export const healthWords = 8;

/** About how many pieces are examined side by side, and the fewest groups of eight values in one. */
const partsWanted = 512;
const leastSpan = 64;
/** Magnitudes that no stage of a working model reaches. */
const exploded = 1e6;

/**
 * Examines all values of x (not the padding) and writes row `slot` of the result.
 * x: [R, C] f32, result: [slots, 8] u32; judge the row with {@link judgeHealth} once it is read back.
 */
export function health(recorder: Recorder, x: Tensor, result: Tensor, slot: number, label = "health"): void {
  const { facts } = recorder;
  assert(x.dtype === "f32", `${label}: "${x.label}" is ${x.dtype}, expected f32`);
  assert(
    result.dtype === "u32" && result.cols === healthWords && 0 <= slot && slot < result.rows,
    `${label}: slot ${slot} of [${result.rows}, ${result.cols}] ${result.dtype}, expected rows of ${healthWords} u32`,
  );
  const rowOctets = x.pitch / 8;
  const span = Math.max(leastSpan, Math.ceil((x.rows * rowOctets) / partsWanted));
  const cut = bands(x.rows, rowsPerBinding(facts, x)).map(({ begin, end }) => {
    const octets = (end - begin) * rowOctets;
    return { begin, end, octets, parts: Math.ceil(octets / span) };
  });
  const allParts = cut.reduce((sum, { parts }) => sum + parts, 0);
  const found = recorder.scratch(`${label} parts`, allParts, healthWords, "u32");
  const workgroup = rowWorkgroup(facts, 64);
  let firstPart = 0;
  for (const { begin, end, octets, parts } of cut) {
    const input = bindRows(x, begin, end);
    const output = bindRows(found, firstPart, firstPart + parts);
    firstPart += parts;
    recorder.dispatch({
      kernel: kernel("health", { overrides: workgroup }),
      label,
      bindings: { x: input.binding, part: output.binding },
      params: {
        octets,
        row_octets: rowOctets,
        cols: x.cols,
        span,
        parts,
        x_offset: input.offset,
        part_offset: output.offset,
      },
      workgroups: foldWorkgroups(parts / workgroup.ROWS_PER_WORKGROUP),
      flops: octets * 8 * 4,
      bytes: (end - begin) * rowBytes(x),
    });
  }
  const input = bindRows(found);
  const output = bindRows(result, slot, slot + 1);
  recorder.dispatch({
    kernel: kernel("health_combine", { overrides: { ...workgroup, ROWS_PER_WORKGROUP: 1 } }),
    label,
    bindings: { part: input.binding, result: output.binding },
    params: { parts: allParts, part_offset: input.offset, result_offset: output.offset },
    workgroups: [1, 1, 1],
    flops: allParts * 4,
    bytes: allParts * rowBytes(found),
  });
}

/**
 * Throws if the values that a slot describes cannot come from a working model.
 *
 * @param words the slot's 8 words
 * @param stage named in the message, such as "step 3 of 4"
 * Errors: numerics.non_finite (NaN or infinite values), numerics.collapsed (all values equal, and more than one),
 * numerics.exploded (a magnitude above 1e6).
 */
export function judgeHealth(words: Uint32Array, stage: string): void {
  assert(words.length >= healthWords, `health of ${stage}: got ${words.length} words, expected ${healthWords}`);
  const [nonFinite, least, greatest, count] = words as unknown as [number, number, number, number];
  assert(count > 0, `health of ${stage}: the check has not run`);
  const advice = "try --precision f32; if it stays, the checkpoint or the driver is damaged";
  if (nonFinite > 0) {
    throw new DaybreakError(
      "numerics.non_finite",
      `${stage} gave ${nonFinite} of ${count} values that are NaN or infinite; ${advice}`,
    );
  }
  const low = fromOrdered(least);
  const high = fromOrdered(greatest);
  if (low < -exploded || high > exploded) {
    throw new DaybreakError(
      "numerics.exploded",
      `${stage} gave values from ${low} to ${high}, expected magnitudes of at most ${exploded}; ${advice}`,
    );
  }
  // −0 and 0 differ as bits and are equal as numbers.
  if (low === high && count > 1) {
    throw new DaybreakError("numerics.collapsed", `${stage} gave ${count} values that all equal ${low}; ${advice}`);
  }
}

/**
 * A number from bits that compare like integers: those of negative numbers are inverted, others have the top bit set.
 */
function fromOrdered(ordered: number): number {
  const bits = ordered >= 0x8000_0000 ? ordered - 0x8000_0000 : ~ordered;
  return new Float32Array(Int32Array.of(bits).buffer)[0] as number;
}
