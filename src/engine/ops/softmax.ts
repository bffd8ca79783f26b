// The softmax of each row of a matrix, where scores are written out: attention of many heads streams its own.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";
import { bands, foldWorkgroups, rowsPerDispatch, rowWorkgroup } from "./cut.js";

/** x[r, c] = softmax over c of scale·x[r, c], in place; x: [R, C] f32. */
export function softmax(recorder: Recorder, x: Tensor, scale: number, label = "softmax"): void {
  const { facts } = recorder;
  assert(x.dtype === "f32", `${label}: "${x.label}" is ${x.dtype}, expected f32`);
  const workgroup = rowWorkgroup(facts, 64);
  const chosen = kernel("softmax", { overrides: workgroup });
  const flopsPerRow = 8 * x.cols;
  for (const { begin, end } of bands(x.rows, rowsPerDispatch(facts, [x, x, x], flopsPerRow))) {
    const { binding, offset } = bindRows(x, begin, end);
    recorder.dispatch({
      kernel: chosen,
      label,
      bindings: { x: binding },
      params: { rows: end - begin, cols: x.cols, pitch: x.pitch, x_offset: offset, scale: Math.LOG2E * scale },
      workgroups: foldWorkgroups((end - begin) / workgroup.ROWS_PER_WORKGROUP),
      flops: (end - begin) * flopsPerRow,
      bytes: 5 * (end - begin) * rowBytes(x),
    });
  }
}
