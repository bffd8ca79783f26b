// Reads weights for use on the CPU: rows of the embedding table.
// Owns no memory beyond its results and a few reads; never reads a whole table. The table of a 4B model is 742 MiB, of
// which a prompt needs some 20 different rows: they are read by range and never uploaded as a table.

import { assert, DaybreakError } from "../../errors.js";
import { type Encoding, encodingNames, encodingOf, widen } from "./encodings.js";
import type { TensorEntry } from "./files/container.js";
import type { TensorFileSet } from "./files/tensor-files.js";
import { quote } from "./source.js";

/** Rows this close to each other are read in one go: the bytes between cost less than another read. */
const gapBytes = 16 * 1024;
const maxReadBytes = 1024 * 1024;
/** Reads under way at a time: over a network each takes a round trip. */
const parallelReads = 8;

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
  const { entry, encoding } = findTensor(files, name);
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

  const rowBytes = width * encoding.elementBytes;
  const positions = new Map<number, number[]>(distinct.map((id) => [id, []]));
  for (const [position, id] of ids.entries()) positions.get(id)!.push(position);
  const result = new Uint32Array(ids.length * width);
  const readRun = async (run: number[]): Promise<void> => {
    const first = run[0]!;
    const bytes = await files.read(name, first * rowBytes, (run.at(-1)! + 1) * rowBytes, signal);
    for (const id of run) {
      const row = bytes.subarray((id - first) * rowBytes, (id - first + 1) * rowBytes);
      for (const position of positions.get(id)!) widen(encoding, row, result, position * width);
    }
  };
  const runs = mergeRuns(distinct, rowBytes);
  for (let i = 0; i < runs.length; i += parallelReads) {
    await Promise.all(runs.slice(i, i + parallelReads).map(readRun));
  }
  return new Float32Array(result.buffer);
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

function findTensor(files: TensorFileSet, name: string): { entry: TensorEntry; encoding: Encoding } {
  const entry = files.tensors.get(name);
  if (!entry) {
    throw new DaybreakError(
      "weights.tensor_missing",
      `${files.folder}: missing tensor ${quote(name)}: fetch the files again`,
    );
  }
  const encoding = encodingOf(entry.encoding);
  if (encoding) return { entry, encoding };
  throw new DaybreakError(
    "weights.dtype_unsupported",
    `${files.folder}: ${quote(name)} is ${quote(entry.encoding)}, expected ${encodingNames}`,
  );
}
