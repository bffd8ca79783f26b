// What a file format has to say of its tensors: where they are. What their bytes mean is the encodings' (encodings.ts). A
// further format is another file beside safetensors.ts and another row in tensor-files.ts.

import { DaybreakError } from "../../../errors.js";
import type { CheckpointSource } from "../source.js";

/** Where a tensor lies: bytes [begin, end) of the file `path`, and in which encoding, as the file spells it. */
export type TensorEntry = { name: string; encoding: string; shape: number[]; path: string; begin: number; end: number };

/** A format of files that hold tensors. */
export type Container = {
  /** That its files' names end with. */
  suffix: string;
  /**
   * Every tensor of a file, by name. Checks all that the file says before anything is allocated by it: the bytes of each
   * tensor fit its shape and encoding and lie within the file; nothing behind it does. Errors: those of the format, of
   * which `safetensors.truncated` and those of shards and their index are all formats', and those of the source.
   */
  open(source: CheckpointSource, path: string): Promise<Map<string, TensorEntry>>;
};

/** A file that ends before the byte it must have; `gotBytes` is its length where that is known. */
export function truncated(path: string, expectedBytes: number, gotBytes?: number): DaybreakError {
  const end = gotBytes === undefined ? `before byte ${expectedBytes}` : `at byte ${gotBytes}`;
  return new DaybreakError(
    "safetensors.truncated",
    `${path} ends ${end}, expected at least ${expectedBytes} bytes: the download was cut, fetch the file again`,
  );
}
