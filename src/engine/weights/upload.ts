// Streams a component's weights from its files into GPU buffers, in a few megabytes of memory for any size of model.
// Owns the buffers until the set is closed. Knows no model: the table says what goes where. Reads run ahead of the
// upload (reading.ts), and never more than `bytesInFlight` wait in the device's own staging memory.
// Weights that do not stay on the device are in streaming.ts.

import { assert, DaybreakError, throwIfAborted } from "../../errors.js";
import type { Device } from "../gpu/device.js";
import type { Recorder } from "../gpu/recorder.js";
import type { Storage } from "../gpu/tensor.js";
import { bufferUsage } from "../gpu/usage.js";
import { type DeviceDtype, encodingOf, type FiniteTest } from "./encodings.js";
import type { TensorFileSet } from "./files/tensor-files.js";
import { allFiniteByScript } from "./finite.js";
import { packedBytes, packPiece, planTargets, type Target } from "./layout.js";
import { digestEmbeddings, nonFinite, planReading, readAhead } from "./reading.js";
import { readRows } from "./rows.js";
import { checkTensors, type SlotTable, tensorName } from "./slots.js";
import { oneLine } from "./source.js";

/** writeBuffer copies into memory of the device's, which only finished work gives back. */
const bytesInFlight = 64 * 1024 * 1024;
/** Of what elements are widened to. */
const f32Test = encodingOf("F32")?.finite as FiniteTest;

/** What the upload needs of a device; {@link Device} has it. */
export type UploadDevice = Pick<Device, "gpu" | "limits" | "check" | "settled" | "createBuffer" | "destroyBuffer">;

/** A matrix [rows, cols] on the device; a convolution [O, I, kh, kw] has rows O and columns [kh, kw, I padded to 8]. */
export type Weight = {
  label: string;
  storage: Storage;
  /** Where row 0 begins, a multiple of 256. */
  byteOffset: number;
  rows: number;
  cols: number;
  /** Elements from one row to the next, a multiple of 8; those from `cols` on are zero. */
  pitch: number;
  dtype: DeviceDtype;
  byteLength: number;
};

/** `length` f32 values, followed by zeros up to a multiple of 8. */
export type Vector = { label: string; storage: Storage; byteOffset: number; length: number };

/** Where a target's bytes begin in a buffer. */
export type BufferRange = { buffer: GPUBuffer; byteOffset: number };

/** Weights by slot. Asking for a slot that the table does not have is a programmer error. */
export type Weights = {
  matrix(slot: string): Weight;
  conv(slot: string): Weight;
  vector(slot: string): Vector;
};

/** A component's weights. */
export type WeightSet = Weights & {
  /**
   * The weights of one block, by slots without its name. Asked for where the block's recording begins: a set that does
   * not keep its blocks on the device brings this one there then, and the next one.
   */
  block(recorder: Recorder, name: string): Weights;
  /**
   * Rows of an embedding, [ids.length, cols], read from the files: the table itself is never loaded.
   * Errors: `request.cancelled`, those of the source.
   */
  rows(slot: string, ids: Int32Array, signal?: AbortSignal): Promise<Float32Array>;
  /** Bytes of all buffers that stay. */
  byteLength: number;
  /** Destroys the buffers; further calls do nothing. */
  close(): void;
};

export type LoadOptions = {
  /** `doneBytes` of the component's `totalBytes` of files are on the device. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** Ends the loading, also in the middle of a read. */
  signal?: AbortSignal;
  /** Puts values into the ranges in place of the files', which are not read then. */
  fill?: (ranges: ReadonlyMap<Target, BufferRange>) => Promise<void>;
  /** Which slots to load, default all. */
  only?: (slot: string) => boolean;
};

/**
 * Loads the slots of `table` from `files` onto the device. Elements keep the file's type; vectors and stacks of
 * different types are widened to f32.
 * Errors: `weights.*` (those of {@link checkTensors} and of {@link readAhead}), `device.limit_exceeded`,
 * `device.out_of_memory`, `device.lost`, `safetensors.truncated`, `request.cancelled`, those of the source. No buffer is
 * left after an error.
 */
export async function loadWeights(
  device: UploadDevice,
  files: TensorFileSet,
  table: SlotTable,
  options: LoadOptions = {},
): Promise<WeightSet> {
  checkTensors(table, files);
  const { only = () => true } = options;
  const targets = planTargets(table, files).filter(({ slot }) => only(slot.slot));
  checkLimits(device, table, targets);
  const buffers = new Map<Target, GPUBuffer>();
  try {
    await createBuffers(device, table, targets, buffers);
    const ranges = new Map([...buffers].map(([target, buffer]) => [target, { buffer, byteOffset: 0 }]));
    if (options.fill) {
      await options.fill(ranges);
      throwIfAborted(options.signal, "loading the weights");
    } else {
      await fillRanges(device, files, ranges, options);
      await digestEmbeddings(files, table, options.signal);
    }
  } catch (error) {
    destroyAll(device, buffers);
    throw error;
  }
  return weightSet(device, files, table, buffers);
}

/** Throws device.limit_exceeded for a weight that is larger than the device's buffers. */
export function checkLimits(device: UploadDevice, table: SlotTable, targets: Target[]): void {
  for (const { slot, byteLength } of targets) {
    if (byteLength <= device.limits.bufferBytes) continue;
    throw new DaybreakError(
      "device.limit_exceeded",
      `the weight ${table.folder} ${slot.slot} needs a buffer of ${byteLength} bytes, the device allows ${device.limits.bufferBytes}: use a smaller checkpoint or another GPU`,
    );
  }
}

/** All buffers come first: a device that is too small says so before gigabytes are read. */
async function createBuffers(
  device: UploadDevice,
  table: SlotTable,
  targets: Target[],
  buffers: Map<Target, GPUBuffer>,
): Promise<void> {
  const usage = bufferUsage.STORAGE | bufferUsage.COPY_DST | bufferUsage.COPY_SRC;
  device.check();
  device.gpu.pushErrorScope("out-of-memory");
  let failure: GPUError | null = null;
  try {
    for (const target of targets) {
      buffers.set(target, device.createBuffer(`${table.folder} ${target.slot.slot}`, target.byteLength, usage));
    }
  } finally {
    failure = await device.settled(device.gpu.popErrorScope());
  }
  if (!failure) return;
  const total = targets.reduce((sum, target) => sum + target.byteLength, 0);
  throw new DaybreakError(
    "device.out_of_memory",
    `the device has no memory for the ${total} bytes of ${table.folder} (${oneLine(failure.message)}): close other programs or use a smaller checkpoint`,
  );
}

/** Reads the targets' tensors into their ranges; resolves when all of it is on the device. */
export async function fillRanges(
  device: UploadDevice,
  files: TensorFileSet,
  ranges: ReadonlyMap<Target, BufferRange>,
  { onProgress, signal }: LoadOptions,
): Promise<void> {
  const { queue } = device.gpu;
  const { pieces, reads, totalBytes } = planReading([...ranges.keys()], files);
  const staging = new Uint8Array(pieces.reduce((most, piece) => Math.max(most, packedBytes(piece)), 0));
  let doneBytes = 0;
  let written = 0;
  let fence: Promise<unknown> = Promise.resolve();
  for await (const { read, bytes } of readAhead(files, reads, signal)) {
    device.check();
    for (const piece of read.pieces) {
      const packed = packPiece(piece, bytes.subarray(piece.begin - read.begin, piece.end - read.begin), staging);
      if (!piece.stored.finite && !allFiniteByScript(f32Test, packed)) throw nonFinite(piece);
      // Padded rows are whole multiples of 16 bytes and vectors of 4, as writeBuffer demands.
      const { buffer, byteOffset } = ranges.get(piece.target)!;
      queue.writeBuffer(buffer, byteOffset + piece.offset, packed, 0, packed.length);
      written += packed.length;
      if (written < bytesInFlight / 2) continue;
      // Waiting for the half before the last one keeps the device busy and at most two halves in flight.
      await device.settled(fence);
      fence = submitted(device);
      written = 0;
    }
    doneBytes += read.end - read.begin;
    onProgress?.(doneBytes, totalBytes);
  }
  await device.settled(submitted(device));
}

/** Resolves when everything written so far is on the device. It is awaited later, so a rejection is not unhandled. */
function submitted(device: UploadDevice): Promise<unknown> {
  const { queue } = device.gpu;
  queue.submit([]); // writes may otherwise wait for a submission that nobody makes
  const done = queue.onSubmittedWorkDone();
  done.catch(() => undefined);
  return done;
}

function destroyAll(device: UploadDevice, buffers: Map<Target, GPUBuffer>): void {
  for (const buffer of buffers.values()) device.destroyBuffer(buffer);
  buffers.clear();
}

function weightSet(
  device: UploadDevice,
  files: TensorFileSet,
  table: SlotTable,
  buffers: Map<Target, GPUBuffer>,
): WeightSet {
  const places = new Map(
    [...buffers].map(([target, buffer]) => [target, { storage: ownStorage(buffer), byteOffset: 0 }]),
  );
  const weights = weightsBySlot(table, places);
  return {
    ...weights,
    block: (_, name) => withPrefix(weights, `${name}.`),
    rows: (slot, ids, signal) => {
      const cols = table.slots.get(slot)?.shape[1] as number;
      return readRows(files, tensorName(table, slot), ids, cols, signal);
    },
    byteLength: [...buffers.values()].reduce((sum, buffer) => sum + buffer.size, 0),
    close: () => {
      destroyAll(device, buffers);
      places.clear();
    },
  };
}

function ownStorage(buffer: GPUBuffer): Storage {
  return { label: buffer.label, byteLength: buffer.size, buffer, isPlanned: false };
}

/** Where a target's bytes begin in a storage. */
export type WeightPlace = { storage: Storage; byteOffset: number };

/** The weights in these places, by slot; what is removed from `places` is no longer found. */
export function weightsBySlot(table: SlotTable, places: ReadonlyMap<Target, WeightPlace>): Weights {
  const targets = new Map([...places.keys()].map((target) => [target.slot.slot, target]));
  const find = (slot: string, kind: string) => {
    const target = targets.get(slot);
    const place = target && places.get(target);
    const got = target?.slot.kind ?? table.slots.get(slot)?.kind ?? "no slot";
    assert(place && got === kind, `got ${got} for ${table.folder} ${slot}, expected a ${kind} that is loaded`);
    return { target, place, label: `${table.folder} ${slot}` };
  };
  const weight = (slot: string, kind: string): Weight => {
    const { target, place, label } = find(slot, kind);
    const { rows, cols, pitch, dtype, byteLength } = target;
    return { label, ...place, rows, cols, pitch, dtype, byteLength };
  };
  return {
    matrix: (slot) => weight(slot, "matrix"),
    conv: (slot) => weight(slot, "conv"),
    vector: (slot) => {
      const { target, place, label } = find(slot, "vector");
      return { label, ...place, length: target.cols };
    },
  };
}

/** The same weights, asked for without what all of their slots begin with. */
export function withPrefix(weights: Weights, prefix: string): Weights {
  return {
    matrix: (slot) => weights.matrix(prefix + slot),
    conv: (slot) => weights.conv(prefix + slot),
    vector: (slot) => weights.vector(prefix + slot),
  };
}
