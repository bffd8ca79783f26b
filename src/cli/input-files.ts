// Reads what a request takes from files: reference pictures and starting noise. Owns the limits on such files and puts
// their names into messages. A file may be anything the user's shell can name: pipes and devices are refused, since
// opening one can block for ever, and nothing is read whole before its size is known.

import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import type { ReferenceLimits } from "../engine/references.js";
import { maxPixels, maxReferences, type RgbImage } from "../engine/request.js";
import { safetensors } from "../engine/weights/files/safetensors.js";
import type { CheckpointSource } from "../engine/weights/source.js";
import { readRange } from "../engine/weights/source.js";
import { DaybreakError } from "../errors.js";
import { decodeReference } from "../media/references.js";

/** 64 megapixels of 16-bit RGBA, stored without compression. */
const maxMediaBytes = 512 * 1024 * 1024;
/** The starting noise of the largest picture has a value for each of its pixels and each of 64 channels at most. */
const maxLatentValues = maxPixels * 64;

/**
 * Decodes reference pictures of sizes that the model takes; `files` are their bytes.
 * Errors: `file.unreadable`, `reference.*`, with the file's name.
 */
export async function readReferences(
  paths: readonly string[],
  limits: ReferenceLimits,
): Promise<{ images: RgbImage[]; files: Uint8Array[] }> {
  if (paths.length > maxReferences) {
    throw new DaybreakError(
      "reference.too_many",
      `got ${paths.length} reference images, expected at most ${maxReferences}: leave some out`,
    );
  }
  const images: RgbImage[] = [];
  const files: Uint8Array[] = [];
  for (const path of paths) {
    const bytes = await readMedia(path);
    files.push(bytes);
    images.push(await decodeReference(bytes, limits).catch((error) => Promise.reject(named(path, error))));
  }
  return { images, files };
}

/** The bytes of a picture or a video. Errors: `file.unreadable`, `reference.too_large`. */
export async function readMedia(path: string): Promise<Uint8Array> {
  const size = await fileSize(path);
  if (size <= maxMediaBytes) return readWhole(path);
  const message = `${path} has ${size} bytes, expected at most ${maxMediaBytes}: send a smaller one`;
  throw new DaybreakError("reference.too_large", message);
}

/**
 * Reads the tensor `latents.noise`, [1, C, h, w] F32, of a safetensors file; a trace is one. Nothing else is read.
 * Errors: `file.unreadable`, `safetensors.*`, `request.latents_invalid`.
 */
export async function readLatents(path: string): Promise<{ shape: number[]; data: Float32Array }> {
  const invalid = (what: string) => new DaybreakError("request.latents_invalid", `${path} ${what}`);
  const extension = ".safetensors";
  if (!path.endsWith(extension)) throw invalid(`has another name than expected: FILE${extension}`);
  await fileSize(path);
  const handle = await open(path, "r").catch((error) => Promise.reject(unreadable(path, error)));
  try {
    const source = fileSource(path, handle);
    const entry = (await safetensors.open(source, path)).get("latents.noise");
    if (!entry) throw invalid("has no tensor latents.noise: give a trace, or a file with that tensor");
    const { encoding, shape, begin, end } = entry;
    if (encoding !== "F32") throw invalid(`has latents.noise as ${encoding}, expected F32`);
    const values = (end - begin) / 4;
    if (shape.length !== 4 || shape[0] !== 1 || values === 0 || values > maxLatentValues) {
      throw invalid(
        `has latents.noise of shape [${shape.slice(0, 8)}], expected [1, channels, height / 16, width / 16]`,
      );
    }
    const bytes = await readRange(source, path, begin, end);
    // A file need not align its tensors.
    return { shape, data: new Float32Array(bytes.slice().buffer) };
  } finally {
    await handle.close();
  }
}

/** One file as a checkpoint with a single file, under its own name, so that messages name it. */
function fileSource(path: string, handle: FileHandle): CheckpointSource {
  return {
    list: async () => [path],
    read: async (_, begin, end) => {
      const { size } = await handle.stat();
      const bytes = new Uint8Array(Math.max(0, Math.min(end, size) - begin));
      let filled = 0;
      while (filled < bytes.length) {
        const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, begin + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return bytes.subarray(0, filled);
    },
  };
}

/** The bytes of a regular file; anything else is refused. */
async function fileSize(path: string): Promise<number> {
  const info = await stat(path).catch((error) => Promise.reject(unreadable(path, error)));
  if (info.isFile()) return info.size;
  const what = info.isDirectory() ? "a folder" : "no regular file";
  throw new DaybreakError("file.unreadable", `${path} is ${what}, expected a file`);
}

function readWhole(path: string): Promise<Uint8Array> {
  return readFile(path).catch((error) => Promise.reject(unreadable(path, error)));
}

function unreadable(path: string, error: NodeJS.ErrnoException): DaybreakError {
  const why = error.code === "ENOENT" ? "there is no such file: check the path" : error.message;
  return new DaybreakError("file.unreadable", `${path} cannot be read: ${why}`, { cause: error });
}

/** The same error with the file's name in front. */
export function named(path: string, error: unknown): unknown {
  if (!(error instanceof DaybreakError)) return error;
  return new DaybreakError(error.code, `${path}: ${error.message}`, { cause: error });
}
