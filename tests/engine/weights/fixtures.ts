// Checkpoints and safetensors files for the tests of weights: real folders, copies of them in memory that a test
// damages, and files assembled byte by byte.

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { type Encoding, encodingOf, widen } from "../../../src/engine/weights/encodings.js";
import { bytesSource, type CheckpointSource } from "../../../src/engine/weights/source.js";
import { DaybreakError, type ErrorCode } from "../../../src/errors.js";
import { type FileTensor, readSafetensors } from "../../safetensors.js";

const repository = fileURLToPath(new URL("../../../", import.meta.url));
const shared = join(repository, "../shared/models");

export const tinyShapes = join(repository, "models/tiny-shapes");
/** Of its weights: another one means that they are others, or that the formula is. */
export const tinyFingerprint = "12c20d8a51a96044e401f8cb97c55201";

/** The embedded checkpoint, and the further ones where the checkout has them beside it. */
export const checkpointFolders: string[] = [
  tinyShapes,
  ...["tiny-shapes-base", "random-a"].map((name) => join(shared, name)).filter((path) => existsSync(path)),
];

/** A checkpoint's files in memory, to be changed by a test. */
export function filesOf(folder: string): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    if (statSync(join(folder, name)).isFile()) files.set(name.replaceAll("\\", "/"), readBytes(join(folder, name)));
  }
  return files;
}

function readBytes(path: string): Uint8Array {
  return new Uint8Array(readFileSync(path));
}

/** Whether two arrays hold the same bytes; vitest's own comparison takes seconds for a megabyte. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

export function textBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The embedded checkpoint with one JSON file changed. */
export function withJson(path: string, change: (json: Record<string, unknown>) => void): CheckpointSource {
  const files = filesOf(tinyShapes);
  const json = JSON.parse(new TextDecoder().decode(files.get(path)));
  change(json);
  files.set(path, textBytes(JSON.stringify(json)));
  return bytesSource(files);
}

/** A safetensors file of any header, right or wrong. */
export function rawSafetensors(header: unknown, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const json = textBytes(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + data.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  file.set(data, 8 + json.length);
  return file;
}

export type { FileTensor } from "../../safetensors.js";

/** A valid safetensors file of tensors of any type, in the order given. */
export function safetensorsOf(tensors: Record<string, FileTensor>): Uint8Array {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.length] };
    offset += data.length;
  }
  const data = new Uint8Array(offset);
  offset = 0;
  for (const tensor of Object.values(tensors)) {
    data.set(tensor.data, offset);
    offset += tensor.data.length;
  }
  return rawSafetensors(header, data);
}

/** The tensors of a valid file, to be changed and written again with {@link safetensorsOf}. */
export function tensorsOf(file: Uint8Array): Record<string, FileTensor> {
  const tensors = [...readSafetensors(file).tensors];
  return Object.fromEntries(tensors.map(([name, tensor]) => [name, { ...tensor, data: tensor.data.slice() }]));
}

/** The value of a promise that must fail with a DaybreakError of this code, whose message is one line. */
export async function failure(promise: Promise<unknown> | (() => unknown), code: ErrorCode): Promise<DaybreakError> {
  let error: unknown;
  try {
    const value = await (typeof promise === "function" ? promise() : promise);
    expect.fail(`expected ${code}, got ${JSON.stringify(value)?.slice(0, 100)}`);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(DaybreakError);
  const failed = error as DaybreakError;
  expect({ code: failed.code, message: failed.message }).toMatchObject({ code });
  expect(failed.message).not.toMatch(/[\r\n]/);
  expect(failed.message.length).toBeLessThan(1500);
  return failed;
}

/** The elements of `bytes` as numbers. */
export function widened(encoding: Encoding, bytes: Uint8Array): Float32Array {
  const bits = new Uint32Array(bytes.length / encoding.elementBytes);
  widen(encoding, bytes, bits);
  return new Float32Array(bits.buffer);
}

export type EncodingName = "F32" | "F16" | "BF16";

/** The encoding of that name, which there must be. */
export function storedAs(name: EncodingName): Encoding {
  return encodingOf(name) as Encoding;
}
