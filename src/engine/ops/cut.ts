// How operations are cut into dispatches, and dispatches into workgroups: by rows and columns, so that each dispatch
// keeps within what one binding can cover, does not run too long and consists of whole tiles. Pure arithmetic; runs
// nothing. Kernels must give the same bits wherever a band begins: a reduction is either within a row or over fixed
// chunks.

import { assert } from "../../errors.js";
import { bindingAlignment } from "../gpu/commands.js";
import type { DeviceFacts, DeviceLimits } from "../gpu/facts.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";

/** [begin, end) of rows, or of whatever else is cut. */
export type Band = { begin: number; end: number };

/** Most workgroups of a dispatch in one dimension, on every device. */
export const workgroupsPerSide = 65535;

/** Cuts `rows` into bands of at most `step` rows that begin at multiples of `unit`; a band has at least one unit. */
export function bands(rows: number, step: number, unit = 1): Band[] {
  const whole = Math.max(1, Math.floor(step / unit)) * unit;
  const cut: Band[] = [];
  for (let begin = 0; begin < rows; begin += whole) cut.push({ begin, end: Math.min(begin + whole, rows) });
  return cut;
}

/** How many rows of so many bytes one binding can cover, wherever they begin. */
export function bindableRows({ limits }: DeviceFacts, bytesPerRow: number, label: string): number {
  const rows = Math.floor((limits.bindingBytes - bindingAlignment) / bytesPerRow);
  assert(
    rows > 0,
    () => `one row of "${label}" (${bytesPerRow} bytes) exceeds the binding limit ${limits.bindingBytes}`,
  );
  return rows;
}

/** How many rows of a tensor one binding can cover. */
export function rowsPerBinding(facts: DeviceFacts, tensor: Tensor): number {
  return bindableRows(facts, rowBytes(tensor), tensor.label);
}

/** How many rows a dispatch may take: what one binding of each tensor covers and what does not run too long. */
export function rowsPerDispatch(facts: DeviceFacts, tensors: Tensor[], flopsPerRow: number): number {
  const { dispatchFlops, dispatchBytes } = facts.limits;
  const bytesPerRow = tensors.reduce((sum, tensor) => sum + rowBytes(tensor), 0);
  const bindable = tensors.map((tensor) => rowsPerBinding(facts, tensor));
  return Math.min(dispatchFlops / flopsPerRow, dispatchBytes / bytesPerRow, ...bindable);
}

/** A rectangle of a result, which one dispatch computes. */
export type Part = { rows: Band; cols: Band };

/** The row bands of one column band follow each other, because they read the same part of the weight. */
function parts(rows: number, cols: number, rowStep: number, colStep: number): Part[] {
  return bands(cols, colStep).flatMap((colBand) => bands(rows, rowStep).map((band) => ({ rows: band, cols: colBand })));
}

/** The result of a product or of a convolution, and what bounds a dispatch of it. */
export type TiledWork = {
  cols: number;
  /** What a workgroup computes. */
  tileRows: number;
  tileCols: number;
  /** Rows of the result that one binding can cover, and columns, which are rows of the weight. */
  bindableRows: number;
  bindableCols: number;
};

type FlopLimit = Pick<DeviceLimits, "dispatchFlops">;

/** Cuts a product of `rows` rows; `flopsPerCell` are those of one number of the result. */
export function cutProduct(
  { rows, cols, tileRows, tileCols, ...work }: TiledWork & { rows: number; flopsPerCell: number },
  { dispatchFlops }: FlopLimit,
): Part[] {
  const { flopsPerCell, bindableCols } = work;
  const mostRows = Math.min(rows, work.bindableRows, workgroupsPerSide * tileRows);
  // A product that runs too long is cut by columns first, so that each dispatch reads only its part of the weight.
  const colStep = Math.min(
    wholeTiles(bindableCols, tileCols),
    wholeTiles(Math.max(dispatchFlops / (flopsPerCell * mostRows), tileCols), tileCols),
    workgroupsPerSide * tileCols,
  );
  const rowStep = wholeTiles(dispatchFlops / (flopsPerCell * Math.min(colStep, cols)), tileRows);
  return parts(rows, cols, Math.min(mostRows, rowStep), colStep);
}

/** How a 3×3 convolution's taps lie on its input: those of row r begin at row (r·stride − padding) / upsample. */
export type Taps = { stride: number; padding: number; upsample: number };

export type ConvolutionWork = TiledWork & {
  label: string;
  taps: Taps;
  /** Rows of the result that are computed, each of `width` pixels. */
  rows: Band;
  width: number;
  inputHeight: number;
  /** Rows of the input image that one binding can cover. */
  bindableInputRows: number;
  flopsPerPixel: number;
};

/** `rows` are pixels, counted from the first computed row; `inputRows` what their taps reach. */
export type ConvolutionPart = Part & { inputRows: Band };

/** Cuts a convolution into bands of pixels. */
export function cutConvolution(
  work: ConvolutionWork,
  { bindingBytes, dispatchFlops }: Pick<DeviceLimits, "bindingBytes" | "dispatchFlops">,
): ConvolutionPart[] {
  const { taps, rows, width, inputHeight, bindableInputRows, cols, tileRows, tileCols } = work;
  // How many output rows have all their taps in so many input rows: three taps reach one row further on either side.
  const bandRows = Math.floor(((bindableInputRows - 2) * taps.upsample) / taps.stride);
  assert(bandRows >= 1, () => `${work.label}: three rows of the input exceed the binding limit ${bindingBytes}`);
  const pixels = (rows.end - rows.begin) * width;
  const step = Math.min(
    // A band that does not begin at a row's start reaches one row more.
    inputHeight <= bindableInputRows ? pixels : Math.max(1, bandRows - 1) * width,
    work.bindableRows,
    wholeTiles(dispatchFlops / work.flopsPerPixel, tileRows),
  );
  return parts(pixels, cols, step, wholeTiles(work.bindableCols, tileCols)).map((part) => {
    const { begin, end } = part.rows;
    const rowOf = (pixel: number) => rows.begin + Math.floor(pixel / width);
    const reaching = { begin: rowOf(begin), end: rowOf(end - 1) + 1 };
    return { ...part, inputRows: reachedRows(taps, reaching, inputHeight) };
  });
}

/** The rows of the input that the taps of some output rows reach. */
function reachedRows({ stride, padding, upsample }: Taps, { begin, end }: Band, inputHeight: number): Band {
  const top = Math.floor((begin * stride - padding) / upsample);
  const bottom = Math.floor(((end - 1) * stride - padding + 2) / upsample);
  return { begin: Math.max(0, top), end: Math.min(inputHeight, bottom + 1) };
}

export type AttentionWork = {
  heads: number;
  queries: number;
  keys: number;
  tileQueries: number;
  /** What one binding can cover: rows of q, k and v, whose heads follow each other, and queries of the result. */
  bindableRows: number;
  bindableQueries: number;
  /** In one head, over all keys. */
  flopsPerQuery: number;
};

/**
 * What one dispatch of attention computes. Parts of the same heads and queries follow each other, in the order of keys.
 */
export type AttentionPart = { heads: Band; queries: Band; keys: Band };

/** Cuts attention by heads, then by queries, and by keys where those of one head exceed a binding. */
export function cutAttention(work: AttentionWork, { dispatchFlops }: FlopLimit): AttentionPart[] {
  const { heads, queries, keys, flopsPerQuery } = work;
  const keyStep = Math.min(keys, work.bindableRows);
  const queryStep = Math.min(
    queries,
    work.bindableRows,
    work.bindableQueries,
    wholeTiles(dispatchFlops / flopsPerQuery, work.tileQueries),
  );
  // Several heads in one dispatch only while all of their rows fit into one binding.
  const isWhole = keyStep === keys && queryStep === queries;
  const headStep = Math.min(work.bindableRows / Math.max(queries, keys), dispatchFlops / (flopsPerQuery * queries));
  return bands(heads, isWhole ? headStep : 1).flatMap((headBand) =>
    bands(queries, queryStep).flatMap((queryBand) =>
      bands(keys, keyStep).map((keyBand) => ({ heads: headBand, queries: queryBand, keys: keyBand })),
    ),
  );
}

export type HeadsWork = {
  /** Tokens that are written, of `tokens` that each head has. */
  rows: number;
  heads: number;
  tokens: number;
  /** What one binding can cover: tokens of the inputs, and rows of the result, whose heads follow each other. */
  bindableTokens: number;
  bindableRows: number;
  /** Of one token. */
  flopsPerHead: number;
};

/** Cuts work on the heads of some tokens: a dispatch takes some tokens of neighbouring heads. */
export function cutHeads(work: HeadsWork, { dispatchFlops }: FlopLimit): { rows: Band; heads: Band }[] {
  const most = dispatchFlops / work.flopsPerHead;
  return bands(work.rows, Math.min(work.bindableTokens, work.bindableRows, most)).flatMap((band) => {
    const rows = band.end - band.begin;
    // A binding from the first head's first row to the last head's last row covers all tokens of the heads between
    // them.
    const headStep = Math.min(1 + (work.bindableRows - rows) / work.tokens, most / rows);
    return bands(work.heads, headStep).map((heads) => ({ rows: band, heads }));
  });
}

/** The largest whole number of tiles within an extent, so that a cut leaves no partial tile in the middle. */
function wholeTiles(extent: number, tile: number): number {
  return extent < tile ? Math.max(1, Math.floor(extent)) : Math.floor(extent / tile) * tile;
}

/** Workgroups in x and y; kernels number them `y * num_workgroups.x + x` and skip what lies past the end. */
export function foldWorkgroups(count: number): [number, number, number] {
  const whole = Math.ceil(count);
  return [Math.min(whole, workgroupsPerSide), Math.ceil(whole / workgroupsPerSide), 1];
}

/**
 * Shape of workgroups whose lanes share a row. On CPU devices a row has one lane: barriers cost more there than they
 * bring, and a subgroup is a vector of rows.
 */
export function rowWorkgroup(
  { isSoftware }: DeviceFacts,
  lanes: number,
  rows = 1,
): { LANES: number; ROWS_PER_WORKGROUP: number } {
  return isSoftware ? { LANES: 1, ROWS_PER_WORKGROUP: 16 } : { LANES: lanes, ROWS_PER_WORKGROUP: rows };
}
