// Normalisations: RMSNorm (Qwen3), LayerNorm with modulation (the transformer's blocks), GroupNorm (VAE).
// Statistics are f32 and two-pass: the mean first, then squared deviations; E[x²] − E[x]² would cancel.
// GroupNorm's are taken over chunks of rows that are fixed by the width, so that no limit changes a bit of the result.

import { assert } from "../../errors.js";
import { type Binding, bindBytes, bindRows } from "../gpu/commands.js";
import { kernel } from "../gpu/kernel.js";
import type { Recorder } from "../gpu/recorder.js";
import { padded8, rowBytes, sliceRows, type Tensor } from "../gpu/tensor.js";
import type { Vector } from "../weights/upload.js";
import { bands, foldWorkgroups, rowsPerBinding, rowsPerDispatch, rowWorkgroup } from "./cut.js";
import { bindVector } from "./parameters.js";

export type RmsNormOptions = {
  label?: string;
  eps: number;
  /** Of the result. */
  dtype: "f32" | "f16";
};

/** y[r, c] = x[r, c] / √(mean_c(x[r, :]²) + eps) · weight[c]; x: [R, C] f32, weight: [C], y: [R, C]. */
export function rmsNorm(recorder: Recorder, x: Tensor, weight: Vector, options: RmsNormOptions): Tensor {
  const { facts } = recorder;
  const { label = "rms_norm", eps, dtype } = options;
  checkF32(label, x);
  assert(weight.length === x.cols, `${label}: ${x.cols} columns, the weight has ${weight.length}`);
  const y = recorder.scratch(label, x.rows, x.cols, dtype);
  const workgroup = rowWorkgroup(facts, 64);
  const chosen = kernel("rms_norm", { overrides: { ...workgroup, Y_F16: dtype === "f16" ? 1 : 0 } });
  const flopsPerRow = 4 * x.cols;
  for (const { begin, end } of bands(x.rows, rowsPerDispatch(facts, [x, y], flopsPerRow))) {
    const rows = end - begin;
    const input = bindRows(x, begin, end);
    const output = bindRows(y, begin, end);
    recorder.dispatch({
      kernel: chosen,
      label,
      bindings: { x: input.binding, weight: bindVector(weight), y: output.binding },
      params: { rows, cols: x.cols, pitch: x.pitch, x_offset: input.offset, y_offset: output.offset, eps },
      workgroups: foldWorkgroups(rows / workgroup.ROWS_PER_WORKGROUP),
      flops: rows * flopsPerRow,
      bytes: rows * (rowBytes(x) + rowBytes(y)),
    });
  }
  return y;
}

export type LayerNormModulateOptions = {
  label?: string;
  /** Column of the modulation where the C scales begin. */
  scaleAt: number;
  /** Column of the modulation where the C shifts begin. */
  shiftAt: number;
  eps: number;
  /** Of the result. */
  dtype: "f32" | "f16";
};

/**
 * y[r, c] = (1 + m[scaleAt + c])·(x[r, c] − mean)/√(variance + eps) + m[shiftAt + c], biased variance over a row.
 * x: [R, C] f32, modulation m: [1, n·C] f32, y: [R, C]. FLUX.2's LayerNorms have no affine of their own.
 */
export function layerNormModulate(
  recorder: Recorder,
  x: Tensor,
  modulation: Tensor,
  options: LayerNormModulateOptions,
): Tensor {
  const { facts } = recorder;
  const { label = "layer_norm_modulate", scaleAt, shiftAt, eps, dtype } = options;
  checkF32(label, x, modulation);
  for (const at of [scaleAt, shiftAt]) {
    assert(
      modulation.rows === 1 && 0 <= at && at + x.cols <= modulation.cols,
      `${label}: columns [${at}, ${at + x.cols}) of a modulation [${modulation.rows}, ${modulation.cols}]`,
    );
  }
  const y = recorder.scratch(label, x.rows, x.cols, dtype);
  const scale = bindVectors(modulation, scaleAt, x.cols);
  const shift = bindVectors(modulation, shiftAt, x.cols);
  const isAligned = x.cols % 8 === 0 && scaleAt % 4 === 0 && shiftAt % 4 === 0;
  const workgroup = rowWorkgroup(facts, 64);
  const chosen = kernel("layer_norm_modulate", {
    overrides: { ...workgroup, ALIGNED: isAligned ? 1 : 0, Y_F16: dtype === "f16" ? 1 : 0 },
  });
  const flopsPerRow = 8 * x.cols;
  for (const { begin, end } of bands(x.rows, rowsPerDispatch(facts, [x, y], flopsPerRow))) {
    const rows = end - begin;
    const input = bindRows(x, begin, end);
    const output = bindRows(y, begin, end);
    recorder.dispatch({
      kernel: chosen,
      label,
      bindings: { x: input.binding, scale: scale.binding, shift: shift.binding, y: output.binding },
      params: {
        rows,
        cols: x.cols,
        pitch: x.pitch,
        x_offset: input.offset,
        scale_offset: scale.remainder / 4,
        shift_offset: shift.remainder / 4,
        y_offset: output.offset,
        eps,
      },
      workgroups: foldWorkgroups(rows / workgroup.ROWS_PER_WORKGROUP),
      flops: rows * flopsPerRow,
      bytes: rows * (rowBytes(x) + rowBytes(y)),
    });
  }
  return y;
}

/**
 * Binds columns [at, at + count) of row 0, to the end of their last vector of four: rows are padded, so that exists.
 */
function bindVectors(tensor: Tensor, at: number, count: number): { binding: Binding; remainder: number } {
  return bindBytes(tensor.storage, tensor.byteOffset + 4 * at, 16 * Math.ceil((at + count) / 4) - 4 * at);
}

/** Most rows of a chunk of GroupNorm's statistics, and most bytes of x in a chunk. */
const chunkRows = 256;
const chunkBytes = 512 * 1024;
/** How many chunks' statistics one invocation combines; if there are more, several levels combine them. */
const combineFan = 128;
/** Pixels that one invocation of the last pass normalises with the parameters of its eight channels. */
const pixelsEach = 8;

export type GroupNormOptions = {
  label?: string;
  groups: number;
  eps: number;
  /** Applies y·σ(y) afterwards. */
  silu: boolean;
};

/**
 * y[p, c] = (x[p, c] − mean_g)/√(variance_g + eps)·weight[c] + bias[c], then SiLU if asked for; g = ⌊c / (C/groups)⌋,
 * moments over all pixels and the group's channels, biased. x: [h·w, C] f32, weight, bias: [C], y: [h·w, C] f32.
 */
export function groupNorm(
  recorder: Recorder,
  x: Tensor,
  weight: Vector,
  bias: Vector,
  options: GroupNormOptions,
): Tensor {
  const moments = groupMoments(recorder, { rows: x.rows, cols: x.cols }, [{ begin: 0, tensor: () => x }], options);
  return normalizeGroups(recorder, x, moments, weight, bias, options);
}

/** {@link groupNorm} of some of an image's pixels, with the moments of all of them. */
export function normalizeGroups(
  recorder: Recorder,
  x: Tensor,
  { statistics }: GroupMoments,
  weight: Vector,
  bias: Vector,
  { label = "group_norm", groups, silu }: GroupNormOptions,
): Tensor {
  const { facts } = recorder;
  checkF32(label, x);
  assert(
    weight.length === x.cols && bias.length === x.cols,
    `${label}: ${x.cols} channels, the weight has ${weight.length}, the bias ${bias.length}`,
  );
  const moments = bindRows(statistics);
  const y = recorder.scratch(label, x.rows, x.cols);
  const chosen = kernel("group_norm_silu", { overrides: { SILU: silu ? 1 : 0 } });
  const flopsPerRow = (silu ? 8 : 4) * x.cols;
  for (const { begin, end } of bands(x.rows, rowsPerDispatch(facts, [x, y], flopsPerRow))) {
    const rows = end - begin;
    const input = bindRows(x, begin, end);
    const output = bindRows(y, begin, end);
    recorder.dispatch({
      kernel: chosen,
      label,
      bindings: {
        x: input.binding,
        moments: moments.binding,
        weight: bindVector(weight),
        bias: bindVector(bias),
        y: output.binding,
      },
      params: {
        rows,
        groups,
        group_cols: x.cols / groups,
        pitch: x.pitch,
        rows_each: pixelsEach,
        x_offset: input.offset,
        moments_offset: moments.offset,
        y_offset: output.offset,
      },
      workgroups: foldWorkgroups((Math.ceil(rows / pixelsEach) * (x.pitch / 8)) / 64),
      flops: rows * flopsPerRow,
      bytes: rows * (rowBytes(x) + rowBytes(y)),
    });
  }
  return y;
}

/** Mean and 1/√(variance + eps) of each group: a [1, 2·groups] tensor of pairs. */
export type GroupMoments = { statistics: Tensor };

/** Consecutive pixels of an image. They begin at pixel `begin`, where a chunk begins, and are made when asked for. */
export type PixelBand = { begin: number; tensor: () => Tensor };

/** Pixels of a chunk of GroupNorm's statistics on an image of so many channels. Bands begin at multiples of it. */
export function chunkPixels(channels: number): number {
  return Math.min(chunkRows, Math.max(1, Math.floor(chunkBytes / (4 * padded8(channels)))));
}

/**
 * The moments of an image of `rows` pixels and `cols` channels that comes in bands. They are taken over chunks of pixels
 * that are fixed by the channels, so that bands change no bit of them.
 */
export function groupMoments(
  recorder: Recorder,
  { rows, cols }: { rows: number; cols: number },
  pixelBands: readonly PixelBand[],
  { label = "group_norm", groups, eps }: Pick<GroupNormOptions, "label" | "groups" | "eps">,
): GroupMoments {
  assert(cols % groups === 0, `${label}: ${cols} channels in ${groups} groups`);
  const rowsPerChunk = chunkPixels(cols);
  let parts = recorder.scratch(`${label} chunks`, Math.ceil(rows / rowsPerChunk), 2 * groups);
  for (const { begin, tensor } of pixelBands) {
    assert(begin % rowsPerChunk === 0, `${label}: a band begins at pixel ${begin}, within a chunk of ${rowsPerChunk}`);
    const x = tensor();
    const first = begin / rowsPerChunk;
    chunkMoments(recorder, x, sliceRows(parts, first, first + Math.ceil(x.rows / rowsPerChunk)), label, groups);
  }
  let rowsPerPart = rowsPerChunk;
  while (true) {
    const combined = recorder.scratch(`${label} moments`, Math.ceil(parts.rows / combineFan), 2 * groups);
    combineParts(recorder, parts, combined, label, { rows, rowsPerPart, groups, groupCols: cols / groups, eps });
    if (combined.rows === 1) return { statistics: combined };
    parts = combined;
    rowsPerPart *= combineFan;
  }
}

/** Each chunk's mean and sum of squared deviations, by group. */
function chunkMoments(recorder: Recorder, x: Tensor, parts: Tensor, label: string, groups: number): void {
  const { facts } = recorder;
  checkF32(label, x);
  const rowsPerChunk = chunkPixels(x.cols);
  const groupCols = x.cols / groups;
  // Neighbouring lanes take neighbouring groups, so that together they read whole stretches of a row.
  const [GROUPS, PHASES] = facts.isSoftware ? [8, 1] : [8, 16];
  const statistics = kernel("group_norm_statistics", {
    overrides: { GROUPS, PHASES, ALIGNED: groupCols % 4 === 0 ? 1 : 0 },
  });
  const flopsPerRow = 4 * x.cols;
  const step = Math.min(rowsPerDispatch(facts, [x], flopsPerRow), rowsPerBinding(facts, parts) * rowsPerChunk);
  for (const { begin, end } of bands(x.rows, step, rowsPerChunk)) {
    const rows = end - begin;
    const input = bindRows(x, begin, end);
    const chunks = Math.ceil(rows / rowsPerChunk);
    const output = bindRows(parts, begin / rowsPerChunk, begin / rowsPerChunk + chunks);
    recorder.dispatch({
      kernel: statistics,
      label: `${label} statistics`,
      bindings: { x: input.binding, part: output.binding },
      params: {
        rows,
        rows_per_chunk: rowsPerChunk,
        groups,
        group_cols: groupCols,
        x_pitch: x.pitch,
        x_offset: input.offset,
        part_pitch: parts.pitch,
        part_offset: output.offset,
      },
      workgroups: foldWorkgroups(chunks * Math.ceil(groups / GROUPS)),
      flops: rows * flopsPerRow,
      bytes: rows * rowBytes(x),
    });
  }
}

type CombineOptions = { rows: number; rowsPerPart: number; groups: number; groupCols: number; eps: number };

/** Combines each `combineFan` rows of moments into one; a single remaining row becomes mean and 1/√(variance + eps). */
function combineParts(
  recorder: Recorder,
  parts: Tensor,
  combined: Tensor,
  label: string,
  options: CombineOptions,
): void {
  const { facts } = recorder;
  const { rows, rowsPerPart, groups, groupCols, eps } = options;
  const chosen = kernel("group_norm_combine", { overrides: { FINISH: combined.rows === 1 ? 1 : 0 } });
  const step = Math.min(rowsPerBinding(facts, parts) / combineFan, rowsPerBinding(facts, combined));
  for (const { begin, end } of bands(combined.rows, step)) {
    const first = begin * combineFan;
    const last = Math.min(end * combineFan, parts.rows);
    const input = bindRows(parts, first, last);
    const output = bindRows(combined, begin, end);
    recorder.dispatch({
      kernel: chosen,
      label: `${label} statistics`,
      bindings: { part: input.binding, y: output.binding },
      params: {
        parts: last - first,
        fan: combineFan,
        part_rows: rowsPerPart,
        rows: Math.min(rows, last * rowsPerPart) - first * rowsPerPart,
        groups,
        group_cols: groupCols,
        pitch: parts.pitch,
        part_offset: input.offset,
        y_offset: output.offset,
        eps,
      },
      workgroups: foldWorkgroups(((end - begin) * groups) / 64),
      flops: 8 * (last - first) * groups,
      bytes: (last - first) * rowBytes(parts),
    });
  }
}

function checkF32(label: string, ...tensors: Tensor[]): void {
  for (const t of tensors) assert(t.dtype === "f32", `${label}: "${t.label}" is ${t.dtype}, expected f32`);
}
