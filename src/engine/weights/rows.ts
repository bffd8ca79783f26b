// Reads weights for use on the CPU: rows of the embedding table, small vectors.
// Owns no memory beyond its results and a few reads; never reads a whole table. The table of a 4B model is 742 MiB, of
// which a prompt needs some 20 different rows: they are read by range and never uploaded as a table.

import { assert, DaybreakError } from "../../errors.js";
import { elementBytes, isWeightDtype, toFloat32, type WeightDtype, widen } from "./dtypes.js";
import type { TensorEntry, TensorFileSet } from "./safetensors.js";
import { quote } from "./source.js";

/** Rows this close to each other are read in one go: the bytes between cost less than another read. */
const gapBytes = 16 * 1024;
const maxReadBytes = 1024 * 1024;
/** Reads under way at a time: over a network each takes a round trip. */
const parallelReads = 8;
const maxVectorBytes = 16 * 1024 * 1024;

/**
 * Rows `ids` of the matrix `name` [rows, width], widened to float32: [ids.length, width] row-major. Each distinct row
 * is read once.
 * Errors: `weights.tensor_missing`, `weights.shape_mismatch`, `weights.dtype_unsupported`, `request.cancelled`, those of the
 * source.
 */
export async function readRows(
  files: TensorFileSet,
  name: string,
  ids: Int32Array,
  width: number,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const { entry, dtype } = findTensor(files, name);
  const [rows = 0, cols] = entry.shape;
  if (entry.shape.length !== 2 || cols !== width) {
    throw new DaybreakError(
      "weights.shape_mismatch",
      `${name} is ${quote(entry.shape)}, expected [rows,${width}]: config and weights must be of one checkpoint`,
    );
  }
  const distinct = [...new Set(ids)].sort((a, b) => a - b);
  assert(
    distinct.every((id) => id >= 0 && id < rows),
    `got row ids up to ${distinct.at(-1)}, expected 0 to ${rows - 1}`,
  );

  const rowBytes = width * elementBytes(dtype);
  const positions = new Map<number, number[]>(distinct.map((id) => [id, []]));
  for (const [position, id] of ids.entries()) positions.get(id)!.push(position);
  const result = new Uint32Array(ids.length * width);
  const readRun = async (run: number[]): Promise<void> => {
    const first = run[0]!;
    const bytes = await files.read(name, first * rowBytes, (run.at(-1)! + 1) * rowBytes, signal);
    for (const id of run) {
      const row = bytes.subarray((id - first) * rowBytes, (id - first + 1) * rowBytes);
      for (const position of positions.get(id)!) widen(dtype, row, result, position * width);
    }
  };
  const runs = mergeRuns(distinct, rowBytes);
  for (let i = 0; i < runs.length; i += parallelReads) {
    await Promise.all(runs.slice(i, i + parallelReads).map(readRun));
  }
  return new Float32Array(result.buffer);
}

/** A whole small tensor of any shape, widened to float32. Errors as {@link readRows}. */
export async function readVector(files: TensorFileSet, name: string): Promise<Float32Array> {
  const { entry, dtype } = findTensor(files, name);
  const bytes = entry.end - entry.begin;
  assert(bytes <= maxVectorBytes, `got ${bytes} bytes for ${name}, expected at most ${maxVectorBytes}`);
  return toFloat32(dtype, await files.read(name, 0, bytes));
}

/** Groups ascending row ids into runs that one read covers. */
function mergeRuns(distinct: number[], rowBytes: number): number[][] {
  const runs: number[][] = [];
  for (const id of distinct) {
    const run = runs.at(-1);
    const near = run && (id - run.at(-1)! - 1) * rowBytes <= gapBytes && (id - run[0]! + 1) * rowBytes <= maxReadBytes;
    if (near) run.push(id);
    else runs.push([id]);
  }
  return runs;
}

function findTensor(files: TensorFileSet, name: string): { entry: TensorEntry; dtype: WeightDtype } {
  const entry = files.tensors.get(name);
  if (!entry) {
    throw new DaybreakError(
      "weights.tensor_missing",
      `${files.folder}: missing tensor ${quote(name)}: fetch the files again`,
    );
  }
  const { dtype } = entry;
  if (isWeightDtype(dtype)) return { entry, dtype };
  throw new DaybreakError(
    "weights.dtype_unsupported",
    `${files.folder}: ${quote(name)} is ${quote(dtype)}, expected BF16, F16 or F32`,
  );
}
