// Attention of one head as wide as the tensors, for the VAE: two matrix products with a softmax between them, some
// queries at a time. A head of hundreds of channels has no room in an invocation's registers, so streaming it would
// read keys and values once for every few queries.

import { assert } from "../../errors.js";
import type { Recorder } from "../gpu/recorder.js";
import { byteLength, sliceRows, type Tensor } from "../gpu/tensor.js";
import type { Weight } from "../weights/upload.js";
import { bands } from "./cut.js";
import { matmul } from "./matmul.js";
import { softmax } from "./softmax.js";
import { transpose } from "./transpose.js";

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
