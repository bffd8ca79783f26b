// Powers of two that bring rows near the top of f16's range, for kernels that round their operands to f16: weights and
// products of gates may lie anywhere in f32. Knows tensors and weights, no product. They are computed anew in every
// run, which reads each operand once more and takes a hundredth of the product's time.

import { type Binding, bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import type { Tensor } from "../gpu/tensor.js";
import type { Weight } from "../weights/upload.js";
import { type Band, bands, bindableRows, foldWorkgroups, rowsPerBinding, rowWorkgroup } from "./cut.js";
import { bindWeightRows, weightRowBytes, weightType } from "./parameters.js";

/** A scale and its reciprocal for each row of an f32 tensor: [rows, 2] f32. */
export function tensorRowScales(recorder: Recorder, x: Tensor): Tensor {
  const bind = (begin: number, end: number) => {
    const { binding, offset } = bindRows(x, begin, end);
    return { binding, groups: offset / 8 };
  };
  const bindable = rowsPerBinding(recorder.facts, x);
  return rowScales(recorder, { label: x.label, rows: x.rows, groups: x.pitch / 8, type: 0, bindable, bind });
}

/** The same for rows [begin, end) of a weight in f32 or bf16. */
export function weightRowScales(recorder: Recorder, weight: Weight, begin: number, end: number): Tensor {
  const { label, pitch } = weight;
  const bind = (first: number, last: number) => bindWeightRows(weight, begin + first, begin + last);
  const bindable = bindableRows(recorder.facts, weightRowBytes(weight), label);
  return rowScales(recorder, {
    ...{ label, rows: end - begin, groups: pitch / 8, type: weightType(weight), bindable, bind },
  });
}

/** Binds scales of the rows of a band; `offset` counts rows. */
export function bindScales(scales: Tensor, { begin, end }: Band): { binding: Binding; offset: number } {
  const { binding, offset } = bindRows(scales, begin, end);
  return { binding, offset: offset / scales.pitch };
}

type Rows = {
  label: string;
  rows: number;
  /** Of 8 elements, in a row. */
  groups: number;
  /** The value of the X_TYPE tunable. */
  type: number;
  /** Rows that one binding can cover. */
  bindable: number;
  bind(begin: number, end: number): { binding: Binding; groups: number };
};

function rowScales(recorder: Recorder, { label, rows, groups, type, bindable, bind }: Rows): Tensor {
  const { facts } = recorder;
  const y = recorder.scratch(`${label} scales`, rows, 2);
  const flopsPerRow = 8 * groups;
  const step = Math.min(bindable, rowsPerBinding(facts, y), facts.limits.dispatchFlops / flopsPerRow);
  // More lanes than a short row has groups would do nothing.
  const lanes = groups < 64 ? 8 : 64;
  const workgroup = rowWorkgroup(facts, lanes, 64 / lanes);
  for (const { begin, end } of bands(rows, step)) {
    const from = bind(begin, end);
    const to = bindRows(y, begin, end);
    recorder.dispatch({
      kernel: kernel("row_scale", { tunables: { X_TYPE: type }, overrides: workgroup }),
      label: "row scale",
      bindings: { x: from.binding, y: to.binding },
      params: { rows: end - begin, groups, x_offset: from.groups, x_pitch: groups, y_offset: to.offset / y.pitch },
      workgroups: foldWorkgroups((end - begin) / workgroup.ROWS_PER_WORKGROUP),
      flops: flopsPerRow * (end - begin),
      bytes: (end - begin) * (groups * (type === 0 ? 32 : 16) + 32),
    });
  }
  return y;
}
