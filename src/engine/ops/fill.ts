// Random values in a weight's buffer, made on the device: gigabytes of weights for measuring come from nowhere.
// Knows the layout of weights (rows, taps and channels padded with zeros), not which weight is which.

import { assert } from "../../errors.js";
import { bindBytes } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { padded8 } from "../gpu/tensor.js";
import type { Target } from "../weights/layout.js";
import type { BufferRange } from "../weights/upload.js";
import { bands, bindableRows, foldWorkgroups } from "./cut.js";

/** What the values are: nearly normal, within 3.46 deviations of the mean; another key means other numbers. */
export type RandomValues = { key: number; mean: number; deviation: number };

/** The kernel's operations on an element, for cutting the work into dispatches. */
const flopsPerElement = 32;

/**
 * Fills a weight with random values, and its padding with zeros. `target`: bf16 or f32; a convolution's
 * columns [kh, kw, I] are padded within each tap.
 */
export function fillRandom(recorder: Recorder, target: Target, range: BufferRange, values: RandomValues): void {
  const { facts } = recorder;
  const { slot, dtype, rows, pitch } = target;
  const { buffer, byteOffset } = range;
  const label = `fill ${slot.slot}`;
  const storage = { label, byteLength: buffer.size, buffer, isPlanned: false };
  assert(dtype !== "f16", `${label}: got f16, expected bf16 or f32`);
  // A row here is what is padded as one: a row of a matrix, a tap of a convolution's.
  const cols = slot.kind === "conv" ? slot.shape[1]! : target.cols;
  const rowOctets = padded8(cols) / 8;
  const count = (rows * pitch) / 8 / rowOctets;
  const rowBytes = rowOctets * 8 * (dtype === "bf16" ? 2 : 4);
  const rowFlops = rowOctets * 8 * flopsPerElement;
  const bindable = bindableRows(facts, rowBytes, label);
  for (const { begin, end } of bands(count, Math.min(bindable, facts.limits.dispatchFlops / rowFlops))) {
    const bytes = (end - begin) * rowBytes;
    const octets = (end - begin) * rowOctets;
    const { binding, remainder } = bindBytes(storage, byteOffset + begin * rowBytes, bytes);
    recorder.dispatch({
      kernel: kernel("fill_random", { overrides: { Y_BF16: dtype === "bf16" ? 1 : 0 } }),
      label,
      bindings: { y: binding },
      params: { octets, row_octets: rowOctets, cols, first: begin * rowOctets, y_offset: remainder / 16, ...values },
      workgroups: foldWorkgroups(octets / 64),
      flops: (end - begin) * rowFlops,
      bytes,
    });
  }
}
