// Column blocks: what makes one wide tensor of several narrow ones.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";
import { bands, foldWorkgroups, rowsPerDispatch } from "./cut.js";

/** y[r, column + c] = x[r, c]; x: [R, C] f32, y: [R, ≥ column + C] f32. The other columns of y stay as they are. */
export function copyColumns(recorder: Recorder, x: Tensor, y: Tensor, column: number, label = "copy_columns"): void {
  const { facts } = recorder;
  assert(
    x.dtype === "f32" && y.dtype === "f32" && x.rows === y.rows && column + x.cols <= y.cols,
    `${label}: [${x.rows}, ${x.cols}] into columns from ${column} of [${y.rows}, ${y.cols}]`,
  );
  // Whoever writes a row's last column writes its padding.
  const yCols = column + x.cols === y.cols ? y.pitch - column : x.cols;
  for (const { begin, end } of bands(x.rows, rowsPerDispatch(facts, [x, y], x.cols))) {
    const rows = end - begin;
    const input = bindRows(x, begin, end);
    const output = bindRows(y, begin, end);
    recorder.dispatch({
      kernel: kernel("copy_columns"),
      label,
      bindings: { x: input.binding, y: output.binding },
      params: {
        rows,
        cols: x.cols,
        x_offset: input.offset,
        x_pitch: x.pitch,
        y_offset: output.offset + column,
        y_pitch: y.pitch,
        y_cols: yCols,
      },
      workgroups: foldWorkgroups((rows * yCols) / 64),
      flops: rows * yCols,
      bytes: 2 * rows * rowBytes(x),
    });
  }
}
