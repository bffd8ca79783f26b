// How an operation on rows is cut into dispatches, and a dispatch into workgroups. Knows no operation.
// Kernels must give the same bits wherever a band begins: a reduction is either within a row or over fixed chunks.

import { rowsPerBinding } from "../gpu/commands.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { rowBytes, type Tensor } from "../gpu/tensor.js";

/** Rows [begin, end). */
export type Band = { begin: number; end: number };

/** Most workgroups of a dispatch in one dimension, on every device. */
const workgroupsPerSide = 65535;

/** Cuts `rows` into bands of at most `step` rows that begin at multiples of `unit`; a band has at least one unit. */
export function bands(rows: number, step: number, unit = 1): Band[] {
  const whole = Math.max(1, Math.floor(step / unit)) * unit;
  const cut: Band[] = [];
  for (let begin = 0; begin < rows; begin += whole) cut.push({ begin, end: Math.min(begin + whole, rows) });
  return cut;
}

/** How many rows a dispatch may take: what one binding of each tensor covers and what does not run too long. */
export function rowsPerDispatch(facts: DeviceFacts, tensors: Tensor[], flopsPerRow: number): number {
  const { dispatchFlops, dispatchBytes } = facts.limits;
  const bytesPerRow = tensors.reduce((sum, tensor) => sum + rowBytes(tensor), 0);
  const bindable = tensors.map((tensor) => rowsPerBinding(facts, tensor));
  return Math.min(dispatchFlops / flopsPerRow, dispatchBytes / bytesPerRow, ...bindable);
}

/** Workgroups in x and y; kernels number them `y * num_workgroups.x + x` and skip what lies past the end. */
export function foldWorkgroups(count: number): [number, number, number] {
  const whole = Math.ceil(count);
  return [Math.min(whole, workgroupsPerSide), Math.ceil(whole / workgroupsPerSide), 1];
}

/**
 * Shape of workgroups whose lanes share a row: one lane a row on CPU devices, where barriers cost more than they
 * bring and a subgroup is a vector of rows.
 */
export function rowWorkgroup(
  facts: DeviceFacts,
  lanes: number,
  rows = 1,
): { LANES: number; ROWS_PER_WORKGROUP: number } {
  return facts.isSoftware ? { LANES: 1, ROWS_PER_WORKGROUP: 16 } : { LANES: lanes, ROWS_PER_WORKGROUP: rows };
}
