// Attention of one head as wide as the tensors, for the VAE: two matrix products with a softmax between them, some queries
// at a time. A head of hundreds of channels has no room in an invocation's registers, so streaming it would read keys and
// values once for every few queries.

import { assert } from "../../errors.js";
import { bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { byteLength, rowBytes, sliceRows, type Tensor } from "../gpu/tensor.js";
import type { Weight } from "../weights/upload.js";
import { bands, foldWorkgroups, rowsPerBinding, rowsPerDispatch, rowWorkgroup } from "./cut.js";
import { matmul } from "./matmul.js";

/** Scores of the queries that are taken at a time, bytes: they are written once and read four times. */
const scoreBytes = 32 * 1024 * 1024;

/** y[i] = Σ_j softmax_j(q[i]·k[j]/√C)·v[j]; q: [M, C], k, v: [N, C], y: [M, C], all f32. */
export function attentionWide(recorder: Recorder, q: Tensor, k: Tensor, v: Tensor, label = "attention"): Tensor {
  assert(q.cols === k.cols && q.cols === v.cols && k.rows === v.rows, `${label}: q, k and v differ in shape`);
  const y = recorder.scratch(label, q.rows, q.cols);
  const keys = asWeight(k);
  const values = asWeight(transpose(recorder, v, `${label} transpose`));
  // Eight more than the keys' at most: rows are padded.
  const step = Math.max(1, Math.floor(scoreBytes / (4 * (k.rows + 8))));
  for (const { begin, end } of bands(q.rows, step)) {
    const scores = matmul(recorder, sliceRows(q, begin, end), keys, { label: `${label} scores` });
    softmax(recorder, scores, 1 / Math.sqrt(q.cols), `${label} softmax`);
    matmul(recorder, scores, values, { label: `${label} values`, into: { tensor: sliceRows(y, begin, end) } });
  }
  return y;
}

/** An f32 tensor as the weight of a product. */
function asWeight(tensor: Tensor): Weight {
  const { label, storage, byteOffset, rows, cols, pitch } = tensor;
  return { label, storage, byteOffset, rows, cols, pitch, dtype: "f32", byteLength: byteLength(tensor) };
}

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

/** y[c, r] = x[r, c]; x: [R, C] f32, y: [C, R] f32. */
export function transpose(recorder: Recorder, x: Tensor, label = "transpose"): Tensor {
  const { facts } = recorder;
  assert(x.dtype === "f32", `${label}: "${x.label}" is ${x.dtype}, expected f32`);
  const y = recorder.scratch(label, x.cols, x.rows);
  const most = 65535 * 8;
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
