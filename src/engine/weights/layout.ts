// How stored tensors become device buffers: sizes, pitches, and the repacking of one piece at a time.
// Owns the device layout of weights; knows neither files nor GPU. Every row is padded with zeros to a multiple of eight
// elements, so that kernels load whole vec4<u32>; convolutions become [O, kh, kw, I], channels last.

import { assert } from "../../errors.js";
import { padded8 } from "../gpu/tensor.js";
import { type DeviceDtype, type Encoding, encodingOf, widen } from "./encodings.js";
import type { TensorEntry } from "./files/container.js";
import type { TensorFileSet } from "./files/tensor-files.js";
import type { Slot, SlotTable } from "./slots.js";

/** One slot's buffer. A vector is one row of f32. */
export type Target = {
  slot: Slot;
  /** That of the file's encoding, but for vectors and stacks of different encodings (`f32`). */
  dtype: DeviceDtype;
  rows: number;
  cols: number;
  /** Elements from one row to the next, a multiple of 8. */
  pitch: number;
  byteLength: number;
};

/** Consecutive rows of one stored tensor and where they go; a vector's part is one row. */
export type Piece = {
  target: Target;
  /** The tensor's. */
  name: string;
  stored: Encoding;
  path: string;
  /** Bytes [begin, end) of the file. */
  begin: number;
  end: number;
  rows: number;
  /** Byte offset in the target's buffer. */
  offset: number;
};

/** One read of a file: pieces that follow each other in it. */
export type PlannedRead = { path: string; begin: number; end: number; pieces: Piece[] };

/** The buffers that a table's slots need; `files` must have passed `checkTensors`. Embeddings need none. */
export function planTargets(table: SlotTable, files: TensorFileSet): Target[] {
  const targets: Target[] = [];
  for (const slot of table.slots.values()) {
    if (slot.kind === "embedding") continue;
    const dtypes = new Set(slot.parts.map(({ name }) => storedEncoding(entryOf(files, name)).device ?? "f32"));
    const dtype = slot.kind === "vector" || dtypes.size > 1 ? "f32" : [...dtypes][0]!;
    const { rows, cols } = extents(slot);
    const pitch = padded8(cols);
    targets.push({ slot, dtype, rows, cols, pitch, byteLength: rows * pitch * deviceElementBytes(dtype) });
  }
  return targets;
}

/** Rows and columns on the device; a convolution's columns are [kh, kw, I] with I padded to a multiple of 8. */
function extents({ kind, shape }: Slot): { rows: number; cols: number } {
  if (kind === "vector") return { rows: 1, cols: shape[0]! };
  if (kind === "matrix") return { rows: shape[0]!, cols: shape[1]! };
  const [outputs, inputs, kh, kw] = shape as [number, number, number, number];
  return { rows: outputs, cols: kh * kw * padded8(inputs) };
}

/** Cuts a target's tensors into pieces of whole rows, at most `pieceBytes` each unless one row is longer. */
export function planPieces(target: Target, files: TensorFileSet, pieceBytes: number): Piece[] {
  const pieces: Piece[] = [];
  const isVector = target.slot.kind === "vector";
  const targetElement = deviceElementBytes(target.dtype);
  let firstRow = 0; // of the stack; for a vector, the first element
  for (const { name, shape } of target.slot.parts) {
    const entry = entryOf(files, name);
    const partRows = isVector ? 1 : shape[0]!;
    const storedRowBytes = (entry.end - entry.begin) / partRows;
    const targetRowBytes = isVector ? shape[0]! * 4 : target.pitch * targetElement;
    const step = Math.max(1, Math.floor(pieceBytes / Math.max(storedRowBytes, targetRowBytes)));
    for (let row = 0; row < partRows; row += step) {
      const rows = Math.min(step, partRows - row);
      pieces.push({
        target,
        name,
        stored: storedEncoding(entry),
        path: entry.path,
        begin: entry.begin + row * storedRowBytes,
        end: entry.begin + (row + rows) * storedRowBytes,
        rows,
        offset: isVector ? firstRow * 4 : (firstRow + row) * targetRowBytes,
      });
    }
    firstRow += shape[0]!;
  }
  return pieces;
}

/** Orders pieces as they lie in the files and joins neighbours into reads of at most `readBytes`. */
export function planReads(pieces: Piece[], readBytes: number): PlannedRead[] {
  const reads: PlannedRead[] = [];
  const sorted = [...pieces].sort((a, b) => (a.path === b.path ? a.begin - b.begin : a.path < b.path ? -1 : 1));
  for (const piece of sorted) {
    const last = reads.at(-1);
    const follows = last && last.path === piece.path && last.end === piece.begin && piece.end - last.begin <= readBytes;
    // A file need not align its tensors; typed views of the read do need it.
    if (follows && (piece.begin - last.begin) % piece.stored.elementBytes === 0) {
      last.end = piece.end;
      last.pieces.push(piece);
    } else {
      reads.push({ path: piece.path, begin: piece.begin, end: piece.end, pieces: [piece] });
    }
  }
  return reads;
}

/** Bytes that a piece takes on the device. */
export function packedBytes({ target, stored, begin, end, rows }: Piece): number {
  if (target.slot.kind === "vector") return ((end - begin) / stored.elementBytes) * 4;
  return rows * target.pitch * deviceElementBytes(target.dtype);
}

/**
 * A piece's stored bytes in device layout: `bytes` itself where nothing changes, else the beginning of `staging`.
 * `bytes` must be aligned to its elements, `staging` to 4.
 */
export function packPiece(piece: Piece, bytes: Uint8Array, staging: Uint8Array): Uint8Array {
  const { target, stored, rows } = piece;
  const { kind, shape } = target.slot;
  const taps = kind === "conv" ? shape[2]! * shape[3]! : 1;
  const widens = stored.device !== target.dtype;
  const packed = staging.subarray(0, packedBytes(piece));
  const words = () => new Uint32Array(packed.buffer, packed.byteOffset, packed.length / 4);
  if (kind === "vector") {
    widen(stored, bytes, words());
    return packed;
  }
  const storedRowBytes = bytes.length / rows;
  const targetRowBytes = packed.length / rows;
  if (!widens && taps === 1 && storedRowBytes === targetRowBytes) return bytes;
  packed.fill(0);
  if (taps > 1) {
    const elements = widens ? widened(stored, bytes) : bytes;
    channelsLast(elements, packed, rows, shape[1]!, taps, deviceElementBytes(target.dtype));
    return packed;
  }
  const target32 = widens ? words() : undefined;
  for (let row = 0; row < rows; row++) {
    const storedRow = bytes.subarray(row * storedRowBytes, (row + 1) * storedRowBytes);
    if (target32) widen(stored, storedRow, target32, row * target.pitch);
    else packed.set(storedRow, row * targetRowBytes);
  }
  return packed;
}

/** Elements as the bytes of float32. */
function widened(stored: Encoding, bytes: Uint8Array): Uint8Array {
  const elements = new Uint32Array(bytes.length / stored.elementBytes);
  widen(stored, bytes, elements);
  return new Uint8Array(elements.buffer);
}

/** [O, I, taps] to [O, taps, padded8(I)]; the padding is zero already. */
function channelsLast(
  bytes: Uint8Array,
  packed: Uint8Array,
  outputs: number,
  inputs: number,
  taps: number,
  element: 2 | 4,
): void {
  const view = ({ buffer, byteOffset, length }: Uint8Array) =>
    element === 2 ? new Uint16Array(buffer, byteOffset, length / 2) : new Uint32Array(buffer, byteOffset, length / 4);
  const [from, to] = [view(bytes), view(packed)];
  const pitch = padded8(inputs);
  let source = 0;
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      let index = o * taps * pitch + i;
      for (let tap = 0; tap < taps; tap++, index += pitch) to[index] = from[source++]!;
    }
  }
}

function deviceElementBytes(dtype: DeviceDtype): 2 | 4 {
  return dtype === "f32" ? 4 : 2;
}

/** The tensor of that name, which `files` must have. */
export function entryOf(files: TensorFileSet, name: string): TensorEntry {
  const entry = files.tensors.get(name);
  assert(entry, `got no tensor ${name}, expected files that passed checkTensors`);
  return entry;
}

function storedEncoding(entry: TensorEntry): Encoding {
  return encodingOf(entry.encoding) as Encoding; // checkTensors has refused all others
}
