// Checkpoints with something changed: the embedded one with other bytes in a tensor or other fields in a config file.
// The changed bytes lie over the source; nothing is copied on disk, and what is not changed is shared.

import { openTensorFiles } from "../../src/engine/weights/files/tensor-files.js";
import { bytesSource, type CheckpointSource } from "../../src/engine/weights/source.js";
import type { TensorFileStem } from "../../src/engine/weights/spellings.js";
import { filesOf, textBytes, tinyShapes } from "./weights/fixtures.js";

/** Changes a tensor's stored bytes in place; all tensors of the embedded checkpoint are BF16 unless `dtype` says more. */
export type Change = (bytes: Uint8Array, dtype: string) => void;

const stems: Record<string, TensorFileStem> = {
  text_encoder: "model",
  transformer: "diffusion_pytorch_model",
  vae: "diffusion_pytorch_model",
};

let files: Map<string, Uint8Array> | undefined;

/** The embedded checkpoint, read once: 9 MB. */
export function tinySource(): CheckpointSource {
  files ??= filesOf(tinyShapes);
  return bytesSource(files);
}

/** A source with some tensors changed, given as `component/name of the tensor`. */
export async function withTensors(
  source: CheckpointSource,
  changes: Record<string, Change>,
): Promise<CheckpointSource> {
  const patches: { path: string; begin: number; bytes: Uint8Array }[] = [];
  for (const [key, change] of Object.entries(changes)) {
    const [folder, name] = splitOnce(key);
    const files = await openTensorFiles(source, folder, stems[folder] as TensorFileStem);
    const entry = files.tensors.get(name);
    if (!entry) throw new TypeError(`got ${name}, expected a tensor of ${folder}`);
    const bytes = Uint8Array.from(await files.read(name, 0, entry.end - entry.begin));
    change(bytes, entry.encoding);
    patches.push({ path: entry.path, begin: entry.begin, bytes });
  }
  return {
    list: () => source.list(),
    read: async (path, begin, end) => {
      const read = Uint8Array.from(await source.read(path, begin, end));
      for (const patch of patches) {
        if (patch.path !== path) continue;
        const from = Math.max(begin, patch.begin);
        const to = Math.min(begin + read.length, patch.begin + patch.bytes.length);
        if (from < to) read.set(patch.bytes.subarray(from - patch.begin, to - patch.begin), from - begin);
      }
      return read;
    },
  };
}

/** A source with fields of a JSON file set. */
export async function withFields(
  source: CheckpointSource,
  path: string,
  fields: Record<string, unknown>,
): Promise<CheckpointSource> {
  const json = JSON.parse(new TextDecoder().decode(await source.read(path, 0, 2 ** 20)));
  const changed = textBytes(JSON.stringify({ ...json, ...fields }));
  return {
    list: () => source.list(),
    read: (asked, begin, end) =>
      asked === path ? Promise.resolve(changed.slice(begin, end)) : source.read(asked, begin, end),
  };
}

/** The embedded checkpoint as if it were not distilled: guidance and negative prompts count. */
export async function baseSource(): Promise<CheckpointSource> {
  return withFields(tinySource(), "model_index.json", { is_distilled: false });
}

/** A source that says what is read from it. */
export function watched(source: CheckpointSource, onRead: (path: string, begin: number) => void): CheckpointSource {
  return {
    list: () => source.list(),
    read: (path, begin, end) => {
      onRead(path, begin);
      return source.read(path, begin, end);
    },
  };
}

/** Multiplies elements [begin, end) by 2^power, exactly; a BF16 is the upper half of a float32. */
export function scaled(power: number, begin = 0, end = Number.POSITIVE_INFINITY): Change {
  return (bytes, dtype) => {
    if (dtype !== "BF16") throw new TypeError(`got ${dtype}, expected BF16`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = begin; i < Math.min(end, bytes.length / 2); i++) {
      const float = new DataView(new ArrayBuffer(4));
      float.setUint16(2, view.getUint16(2 * i, true), true);
      const product = float.getFloat32(0, true) * 2 ** power;
      float.setFloat32(0, product, true);
      if (!Number.isFinite(product) || float.getUint16(0, true) !== 0) throw new TypeError("the product is inexact");
      view.setUint16(2 * i, float.getUint16(2, true), true);
    }
  };
}

/** Makes every element of a BF16 tensor ±3.4·10³⁸: finite, as loading demands, but what is computed with it is not. */
export const enormous: Change = (bytes, dtype) => {
  if (dtype !== "BF16") throw new TypeError(`got ${dtype}, expected BF16`);
  for (let i = 0; i < bytes.length; i += 2) {
    bytes[i] = 0x7f;
    bytes[i + 1] = (bytes[i + 1]! & 0x80) | 0x7f;
  }
};

export const zeroed: Change = (bytes) => {
  bytes.fill(0);
};

function splitOnce(key: string): [string, string] {
  const at = key.indexOf("/");
  return [key.slice(0, at), key.slice(at + 1)];
}
