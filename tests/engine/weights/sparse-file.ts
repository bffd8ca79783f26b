// Safetensors files of any size that take hardly any room: a valid header, and data that was never written and reads as
// zeros, but for the first byte of each tensor: what is nothing but zeros is no weight.

import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { textBytes } from "./fixtures.js";

export type SparseTensor = { name: string; dtype: "BF16" | "F16" | "F32"; shape: readonly number[] };

/** Writes the file; returns its length. */
export function writeSparse(path: string, tensors: readonly SparseTensor[]): number {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    const bytes = shape.reduce((product, extent) => product * extent, dtype === "F32" ? 4 : 2);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = textBytes(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true);
  const file = openSync(path, "w");
  writeSync(file, length);
  writeSync(file, json);
  ftruncateSync(file, 8 + json.length + offset);
  for (const { data_offsets } of Object.values(header) as { data_offsets: [number, number] }[]) {
    writeSync(file, Uint8Array.of(1), 0, 1, 8 + json.length + data_offsets[0]);
  }
  closeSync(file);
  return 8 + json.length + offset;
}
