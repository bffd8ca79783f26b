// Reads and writes safetensors: u64 header length, JSON header, data. Owns the format and every check of it.
// Knows no model and no tensor's meaning. A file is hostile until proven otherwise: nothing is allocated by a number
// that it states before that number was compared with a limit, and a byte is served only after the whole header held.

import { assert, DaybreakError } from "../../../errors.js";
import { type CheckpointSource, isRecord, lfsPointer, lfsPointerBytes, oneLine, quote, readRange } from "../source.js";
import { type Container, type TensorEntry, truncated } from "./container.js";

/** The format's own limit on the header. */
const maxHeaderBytes = 100_000_000;
/** Bits per element of every type that the format defines; others are kept by name, without a size. */
const dtypeBits: ReadonlyMap<string, number> = new Map([
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E8M0", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
]);
/** Far above any file, far below 2⁵³: sums of offsets stay exact. */
const maxFileBytes = 2 ** 48;

/**
 * Encodes tensors as a safetensors file: larger element types first, then by name, as the reference writer does, so
 * that every tensor is aligned to its elements. `shape` must fit `data`.
 */
export function encodeSafetensors(
  tensors: Iterable<
    readonly [
      string,
      { dtype: "F32" | "I32" | "U8"; shape: readonly number[]; data: Float32Array | Int32Array | Uint8Array },
    ]
  >,
  metadata: Record<string, string> = {},
): Uint8Array {
  const sorted = [...tensors].sort(([nameA, a], [nameB, b]) => {
    return b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT || (nameA < nameB ? -1 : 1);
  });
  const fields: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  let dataBytes = 0;
  for (const [name, { dtype, shape, data }] of sorted) {
    const count = shape.reduce((product, extent) => product * extent, 1);
    assert(
      name !== "__metadata__" && count === data.length,
      `got ${data.length} elements for ${name} of shape [${shape}]`,
    );
    const kind = data instanceof Float32Array ? "F32" : data instanceof Int32Array ? "I32" : "U8";
    assert(dtype === kind, `got ${kind} data for ${name}, expected ${dtype}`);
    fields.push([name, { dtype, shape, data_offsets: [dataBytes, dataBytes + data.byteLength] }]);
    dataBytes += data.byteLength;
  }
  assert(
    new Set(fields.map(([name]) => name)).size === fields.length,
    "got two tensors of one name, expected distinct names",
  );
  // Joined by hand: an object literal would drop a tensor called __proto__ and reorder names that look like numbers.
  const json = `{${fields.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(",")}}`;
  const text = new TextEncoder().encode(json);
  const headerBytes = Math.ceil(text.length / 8) * 8;
  const file = new Uint8Array(8 + headerBytes + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.set(text, 8);
  file.fill(0x20, 8 + text.length, 8 + headerBytes);
  let offset = 8 + headerBytes;
  for (const [, { data }] of sorted) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
    offset += data.byteLength;
  }
  return file;
}

type Header = { tensors: Map<string, TensorEntry>; metadata: Map<string, string>; fileBytes: number };

/** The format as checkpoints are opened in it: headers and each file's end are read, no tensor is. */
export const safetensors: Container = { suffix: ".safetensors", open: openFile };

async function openFile(source: CheckpointSource, path: string): Promise<Map<string, TensorEntry>> {
  const headerBytes = await readHeaderLength(source, path);
  const header = parseHeader(await readRange(source, path, 8, 8 + headerBytes), headerBytes, path);
  // A source has no file sizes: the last byte must be there and one after it must not.
  const lastByte = header.fileBytes - 1;
  const tail = await readRange(source, path, lastByte, lastByte + 2);
  if (tail.length === 0) throw truncated(path, header.fileBytes);
  checkFileEnd(path, header.fileBytes, lastByte + tail.length);
  return header.tensors;
}

async function readHeaderLength(source: CheckpointSource, path: string): Promise<number> {
  const bytes = await readRange(source, path, 0, lfsPointerBytes);
  const pointer = lfsPointer(path, bytes);
  if (pointer) throw pointer;
  if (bytes.length < 8) throw truncated(path, 8, bytes.length);
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(maxHeaderBytes)) {
    throw new DaybreakError(
      "safetensors.header_too_large",
      `${path} states a header of ${length} bytes, at most ${maxHeaderBytes} are allowed: it is damaged or no safetensors file`,
    );
  }
  if (length < 2n) throw invalid(path, `states a header of ${length} bytes, expected at least 2`);
  return Number(length);
}

/** `fileBytes` as the header states it against `got` bytes that are there; `got` may be cut off at fileBytes + 1. */
function checkFileEnd(path: string, fileBytes: number, got: number): void {
  if (got < fileBytes) throw truncated(path, fileBytes, got);
  if (got > fileBytes) throw invalid(path, `goes on after byte ${fileBytes}, where its last tensor ends`);
}

/** Parses and checks a header of `headerBytes` bytes, of which `bytes` are there. */
function parseHeader(bytes: Uint8Array, headerBytes: number, path: string): Header {
  if (bytes.length < headerBytes) throw truncated(path, 8 + headerBytes, 8 + bytes.length);
  if (bytes[0] !== 0x7b) throw invalid(path, "has a header that does not begin with {");
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw invalid(path, `has a header that is no JSON (${oneLine(cause)})`, cause);
  }
  if (!isRecord(json)) throw invalid(path, "has a header that is no JSON object");
  const dataBegin = 8 + headerBytes;
  const tensors = new Map<string, TensorEntry>();
  let metadata = new Map<string, string>();
  for (const [name, value] of Object.entries(json)) {
    if (name === "__metadata__") metadata = parseMetadata(value, path);
    else tensors.set(name, parseEntry(name, value, path, dataBegin));
  }
  return { tensors, metadata, fileBytes: checkCoverage(tensors, path, dataBegin) };
}

/** The reference reader takes null for none. */
function parseMetadata(value: unknown, path: string): Map<string, string> {
  if (value === null) return new Map();
  if (!isRecord(value)) throw invalid(path, `has __metadata__ ${quote(value)}, expected an object of strings`);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string")
      throw invalid(path, `has __metadata__ ${quote(key)} = ${quote(text)}, expected a string`);
  }
  return new Map(Object.entries(value as Record<string, string>));
}

function parseEntry(name: string, value: unknown, path: string, dataBegin: number): TensorEntry {
  const subject = `describes tensor ${quote(name)} with`;
  // JSON.parse makes __proto__ an own property like any other; reading through hasOwn keeps prototypes out.
  const field = (key: string) => (isRecord(value) && Object.hasOwn(value, key) ? value[key] : undefined);
  const [dtype, shape, offsets] = [field("dtype"), field("shape"), field("data_offsets")];
  if (typeof dtype !== "string") throw invalid(path, `${subject} dtype ${quote(dtype)}, expected a string`);
  if (!isSizes(shape)) throw invalid(path, `${subject} shape ${quote(shape)}, expected integers of at least 0`);
  if (!isSizes(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    throw invalid(path, `${subject} data_offsets ${quote(offsets)}, expected [begin, end]`);
  }
  const [begin, end] = [offsets[0]! + dataBegin, offsets[1]! + dataBegin];
  const bits = dtypeBits.get(dtype);
  const tensorBits = shape.reduce((product, extent) => product * extent, bits ?? 0);
  const fits = Number.isSafeInteger(tensorBits) && tensorBits === (end - begin) * 8;
  if (end > maxFileBytes || (bits !== undefined && !fits)) {
    throw invalid(path, `${subject} ${dtype} ${quote(shape)} in bytes [${offsets}], expected ${tensorBits / 8} bytes`);
  }
  return { name, encoding: dtype, shape, path, begin, end };
}

/** Tensors must cover the data without overlap and without holes, in any order. Returns the file's length. */
function checkCoverage(tensors: Map<string, TensorEntry>, path: string, dataBegin: number): number {
  let [covered, previous] = [dataBegin, "the header"];
  for (const { name, begin, end } of [...tensors.values()].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin < covered) throw invalid(path, `has tensor ${quote(name)} overlap ${quote(previous)}`);
    if (begin > covered)
      throw invalid(path, `has ${begin - covered} bytes of no tensor between ${quote(previous)} and ${quote(name)}`);
    [covered, previous] = [end, name];
  }
  return covered;
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function invalid(path: string, what: string, cause?: unknown): DaybreakError {
  return new DaybreakError("safetensors.header_invalid", `${path} ${what}: fetch the file again`, { cause });
}
