// A matrix with rows and columns exchanged, cut both ways: bands of x's rows are bands of y's columns.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import type { Tensor } from "../gpu/tensor.js";
import { bands, rowsPerBinding, rowsPerDispatch, workgroupsPerSide } from "./cut.js";

/** y[c, r] = x[r, c]; x: [R, C] f32, y: [C, R] f32. */
export function transpose(recorder: Recorder, x: Tensor, label = "transpose"): Tensor {
  const { facts } = recorder;
  assert(x.dtype === "f32", `${label}: "${x.label}" is ${x.dtype}, expected f32`);
  const y = recorder.scratch(label, x.cols, x.rows);
  const most = workgroupsPerSide * 8;
  for (const { begin, end } of bands(x.rows, Math.min(most, rowsPerDispatch(facts, [x], x.cols)), 8)) {
    const input = bindRows(x, begin, end);
    // Whoever writes a row's last column writes its padding.
    const yCols = (end === x.rows ? y.pitch : end) - begin;
    for (const { begin: top, end: bottom } of bands(x.cols, Math.min(most, rowsPerBinding(facts, y)))) {
      const output = bindRows(y, top, bottom);
      recorder.dispatch({
        kernel: kernel("transpose"),
        label,
        bindings: { x: input.binding, y: output.binding },
        params: {
          rows: end - begin,
          cols: bottom - top,
          col: top,
          x_offset: input.offset,
          x_pitch: x.pitch,
          y_offset: output.offset + begin,
          y_pitch: y.pitch,
          y_cols: yCols,
        },
        workgroups: [Math.ceil(yCols / 8), Math.ceil((bottom - top) / 8), 1],
        flops: (end - begin) * (bottom - top),
        bytes: 8 * (end - begin) * (bottom - top),
      });
    }
  }
  return y;
}
