// Reads weights from their files: ahead of whoever takes them, in the order of the files, through a few megabytes of
// memory. Looks at every byte on its way: whether it is a number, whether all of a matrix is zero, and what digest its
// tensor has, which is kept with the files. Knows no device and no model.

import { DaybreakError, throwIfAborted, unlessAborted } from "../../errors.js";
import { type TensorDigest, tensorDigest } from "./digest.js";
import { encodingOf } from "./encodings.js";
import { type TensorEntry, truncated } from "./files/container.js";
import type { TensorFileSet } from "./files/tensor-files.js";
import { allZero, type CheckedMemory, checkedMemory } from "./finite.js";
import { entryOf, type Piece, type PlannedRead, planPieces, planReads, planTargets, type Target } from "./layout.js";
import type { Slot, SlotTable } from "./slots.js";
import { quote, readCancelled, readRangeInto } from "./source.js";

/** Bytes of one read; several small tensors share one. */
const readBytes = 4 * 1024 * 1024;
/** Reads under way at a time, each with a buffer of its own. */
const readsAhead = 3;
/** How long a load that was aborted waits for the reads that are under way. */
const farewell_ms = 200;
/** Of a matrix that is not read yet so much tells whether it is zero; as a rule its first value does. */
const probeBytes = 4096;
/** Such small reads that are under way at a time: over a network each takes a round trip. */
const parallelReads = 8;
/** An embedding is not read as a whole: of a larger one so many slices of so many bytes, evenly spread, make its digest. */
const [slices, sliceBytes] = [64, 256 * 1024];

/** What has to be read for these targets. */
export function planReading(targets: readonly Target[], files: TensorFileSet) {
  const pieces = targets.flatMap((target) => planPieces(target, files, readBytes));
  const reads = planReads(pieces, readBytes);
  return { pieces, reads, totalBytes: reads.reduce((sum, read) => sum + read.end - read.begin, 0) };
}

/**
 * Performs reads in order, `readsAhead` at a time, and checks what was read. What is yielded is valid until the next one
 * is asked for, when its memory takes a further read. No read is under way after the loop, however it ends, but one that
 * stalls after an abort.
 * Errors: `weights.non_finite`, `weights.all_zero`, `weights.changed` for a tensor that is not what it was when it was read
 * before; `safetensors.truncated`, `request.cancelled`, those of the source.
 */
export async function* readAhead(
  files: TensorFileSet,
  reads: PlannedRead[],
  signal: AbortSignal | undefined,
): AsyncGenerator<{ read: PlannedRead; bytes: Uint8Array }> {
  const longest = reads.reduce((most, read) => Math.max(most, read.end - read.begin), 0);
  const slotBytes = Math.ceil(longest / 16) * 16; // a slot's typed views need it aligned
  const memory = checkedMemory(slotBytes * Math.min(readsAhead, reads.length));
  const check = pieceChecks(files, memory);
  const pending: Promise<Uint8Array>[] = [];
  const start = (index: number): void => {
    const read = reads[index];
    if (!read) return;
    const slot = (index % readsAhead) * slotBytes;
    const bytes = memory.bytes.subarray(slot, slot + read.end - read.begin);
    const whole = readRangeInto(files.source, read.path, read.begin, bytes, signal).then((count) => {
      if (count < bytes.length) throw truncated(read.path, read.end, read.begin + count);
      return bytes;
    });
    whole.catch(() => undefined); // reported when its turn comes
    pending[index % readsAhead] = whole;
  };
  try {
    for (let index = 0; index < readsAhead; index++) start(index);
    for (const [index, read] of reads.entries()) {
      throwIfAborted(signal, "loading the weights");
      const bytes = await unlessAborted(pending[index % readsAhead]!, signal, readCancelled);
      for (const piece of read.pieces) check(piece, bytes.subarray(piece.begin - read.begin, piece.end - read.begin));
      yield { read, bytes };
      start(index + readsAhead);
    }
    throwIfAborted(signal, "loading the weights");
  } finally {
    // As long as a read is under way it may write to the memory.
    const over = Promise.allSettled(pending).then(() => memory.close());
    await (signal?.aborted ? Promise.race([over, sleep(farewell_ms)]) : over);
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** What is known of a tensor of which a part has been read. */
type Reading = { missingBytes: number; digest: TensorDigest; isZero: boolean };

/** Looks at pieces, those of a tensor in its order; what is said of a tensor is said with its last one. */
function pieceChecks(files: TensorFileSet, memory: CheckedMemory): (piece: Piece, bytes: Uint8Array) => void {
  const readings = new Map<string, Reading>();
  return (piece, bytes) => {
    const { name, stored, target } = piece;
    if (stored.finite && !memory.allFinite(stored.finite, bytes)) throw nonFinite(piece);
    const entry = entryOf(files, name);
    const key = JSON.stringify([target.slot.slot, name]);
    const reading = readings.get(key) ?? {
      missingBytes: entry.end - entry.begin,
      digest: tensorDigest(),
      // Biases are zero now and then; a matrix or convolution that is zero makes nothing of whatever it is given.
      isZero: target.slot.kind !== "vector",
    };
    readings.set(key, reading);
    reading.digest.add(bytes, memory.takeStripes);
    reading.isZero &&= allZero(stored.finite ?? { signs: 0 }, bytes);
    reading.missingBytes -= bytes.length;
    if (reading.missingBytes > 0) return;
    readings.delete(key);
    if (reading.isZero) throw onlyZeros(entry);
    keepDigest(files, entry, name, reading.digest.end());
  };
}

/** Files may be replaced while a model is served, whose weights are read whenever they are used. */
function keepDigest({ digests }: TensorFileSet, { path }: TensorEntry, name: string, digest: string): void {
  const known = digests.get(name);
  if (known !== undefined && known !== digest) {
    throw new DaybreakError(
      "weights.changed",
      `${path}: ${quote(name)} is not what it was when it was first read: the file was replaced or damaged; start again with files that stay`,
    );
  }
  digests.set(name, digest);
}

/**
 * Reads all of a component's weights without a device, with the checks of {@link readAhead}.
 * @param onRead bytes that have been read, of so many
 */
export async function readThrough(
  files: TensorFileSet,
  table: SlotTable,
  { signal, onRead }: { signal?: AbortSignal; onRead?: (doneBytes: number, totalBytes: number) => void } = {},
): Promise<void> {
  const { reads, totalBytes } = planReading(planTargets(table, files), files);
  let doneBytes = 0;
  for await (const { read } of readAhead(files, reads, signal)) {
    doneBytes += read.end - read.begin;
    onRead?.(doneBytes, totalBytes);
  }
  await digestEmbeddings(files, table, signal);
}

/**
 * Digests of a component's embeddings, of which only rows are read otherwise: of the whole table up to 16 MiB, of 64
 * slices of a larger one.
 * Errors: `weights.all_zero`, `weights.changed`, those of the source.
 */
export async function digestEmbeddings(
  files: TensorFileSet,
  { slots }: SlotTable,
  signal?: AbortSignal,
): Promise<void> {
  for (const slot of slots.values()) {
    if (slot.kind !== "embedding") continue;
    for (const { name } of slot.parts) {
      const entry = entryOf(files, name);
      const digest = tensorDigest();
      let isZero = true;
      for await (const bytes of readInTurns(files, name, slicesOf(entry.end - entry.begin), signal)) {
        digest.add(bytes);
        isZero &&= allZero(signsOf(entry), bytes);
      }
      if (isZero) await checkNotZero(files, [slot], signal);
      keepDigest(files, entry, name, digest.end());
    }
  }
}

/** Slices begin at multiples of 64 bytes; the last one reaches the end. */
function slicesOf(length: number): [begin: number, end: number][] {
  const count = Math.min(slices, Math.ceil(length / sliceBytes));
  const step = length <= slices * sliceBytes ? sliceBytes : (length - sliceBytes) / (slices - 1);
  const begins = Array.from({ length: count }, (_, i) => Math.floor((i * step) / 64) * 64);
  return begins.map((begin, i) => [begin, i === count - 1 ? length : begin + sliceBytes]);
}

/**
 * Refuses matrices and convolutions that are zero where nothing else is read of them yet.
 * Errors: `weights.all_zero`, those of the source.
 */
export async function checkNotZero(files: TensorFileSet, slots: readonly Slot[], signal?: AbortSignal): Promise<void> {
  const names = slots.filter(({ kind }) => kind !== "vector").flatMap(({ parts }) => parts.map(({ name }) => name));
  const check = async (name: string) => {
    const entry = entryOf(files, name);
    const length = entry.end - entry.begin;
    let [begin, end] = [0, Math.min(length, probeBytes)];
    while (allZero(signsOf(entry), await files.read(name, begin, end, signal))) {
      if (end === length) throw onlyZeros(entry);
      [begin, end] = [end, Math.min(length, end + readBytes)];
    }
  };
  for (let i = 0; i < names.length; i += parallelReads) {
    await Promise.all(names.slice(i, i + parallelReads).map(check));
  }
}

/** The ranges' bytes in order, a few at a time. */
async function* readInTurns(
  files: TensorFileSet,
  name: string,
  ranges: readonly [begin: number, end: number][],
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < ranges.length; i += parallelReads) {
    const reads = ranges.slice(i, i + parallelReads).map(([begin, end]) => files.read(name, begin, end, signal));
    yield* await Promise.all(reads);
  }
}

function signsOf({ encoding }: TensorEntry): { signs: number } {
  return encodingOf(encoding)?.finite ?? { signs: 0 };
}

export function nonFinite({ path, name }: Pick<Piece, "path" | "name">): DaybreakError {
  return new DaybreakError(
    "weights.non_finite",
    `${path}: ${quote(name)} holds NaN or an infinity, expected finite numbers: fetch the file again, or use another checkpoint`,
  );
}

function onlyZeros({ path, name }: TensorEntry): DaybreakError {
  return new DaybreakError(
    "weights.all_zero",
    `${path}: all values of ${quote(name)} are zero, expected a matrix of a trained model: the download was cut or the file is damaged, fetch it again`,
  );
}
