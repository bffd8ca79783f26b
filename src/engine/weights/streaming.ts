// Weights that pass through the device: a component's blocks are read from its files each time they are used, into
// scratch of the list that uses them, so that any checkpoint runs in the memory of two of its blocks. What belongs to no
// block stays. Knows no model; the table says what a block is.
// A block's bytes are sent while the one before it computes: two blocks' scratch is alive at a time, by turns.

import { assert } from "../../errors.js";
import type { Recorder } from "../gpu/recorder.js";
import type { TensorFileSet } from "./files/tensor-files.js";
import { planTargets, type Target } from "./layout.js";
import { checkNotZero } from "./reading.js";
import type { SlotTable } from "./slots.js";
import {
  type BufferRange,
  checkLimits,
  fillRanges,
  type LoadOptions,
  loadWeights,
  type UploadDevice,
  type WeightPlace,
  type WeightSet,
  type Weights,
  weightsBySlot,
  withPrefix,
} from "./upload.js";

/** Whether a slot belongs to a block of its table. */
export function isStreamed({ blocks }: SlotTable, slot: string): boolean {
  return blocks.flat().some((block) => slot.startsWith(`${block}.`));
}

/** Puts weights into their ranges; resolves when they have been sent. Errors: `request.cancelled` if it is aborted. */
export type FillRanges = (ranges: ReadonlyMap<Target, BufferRange>, signal?: AbortSignal) => Promise<void>;

/**
 * Loads what belongs to no block, and reads the blocks when they are run. `files` must stay open as long as the set.
 * Errors: those of `loadWeights`; while a list runs, those of the files.
 */
export async function streamWeights(
  device: UploadDevice,
  files: TensorFileSet,
  table: SlotTable,
  options: LoadOptions = {},
): Promise<WeightSet> {
  const only = (slot: string) => !isStreamed(table, slot);
  const targets = planTargets(table, files).filter(({ slot }) => !only(slot.slot));
  checkLimits(device, table, targets);
  const kept = await loadWeights(device, files, table, { ...options, only });
  if (!options.fill)
    await checkNotZero(
      files,
      targets.map(({ slot }) => slot),
      options.signal,
    );
  const fill: FillRanges = options.fill ?? ((ranges, signal) => fillBlock(device, files, ranges, signal));
  return { ...kept, block: streamedBlocks(table, targets, device.limits.bufferBytes, fill) };
}

async function fillBlock(
  device: UploadDevice,
  files: TensorFileSet,
  ranges: ReadonlyMap<Target, BufferRange>,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const [{ slot, cols, byteLength }, { buffer, byteOffset }] of ranges) {
    // Scratch holds what was there before, and nothing is read into a vector's padding.
    const begin = 4 * Math.floor(cols / 8) * 8;
    if (slot.kind !== "vector" || begin === byteLength) continue;
    device.gpu.queue.writeBuffer(buffer, byteOffset + begin, new Uint8Array(byteLength - begin));
  }
  await fillRanges(device, files, ranges, { signal });
}

/** {@link WeightSet.block} of blocks that are brought to the device by `fill`, in storages of at most `storageBytes`. */
export function streamedBlocks(
  table: SlotTable,
  targets: readonly Target[],
  storageBytes: number,
  fill: FillRanges,
): WeightSet["block"] {
  const sent = new WeakMap<Recorder, Map<string, Weights>>();

  /** Records the sending of a block, unless it is on its way already. */
  const send = (recorder: Recorder, name: string): Map<string, Weights> => {
    const waiting = sent.get(recorder) ?? new Map<string, Weights>();
    sent.set(recorder, waiting);
    if (waiting.has(name)) return waiting;
    const own = targets.filter(({ slot }) => slot.slot.startsWith(`${name}.`));
    const places = placeTargets(recorder, `${table.folder} ${name}`, own, storageBytes);
    let ranges: Map<Target, BufferRange> | undefined;
    recorder.fill([...new Set([...places.values()].map(({ storage }) => storage))], (signal) => {
      ranges ??= new Map([...places].map(([target, place]) => [target, rangeOf(place)]));
      return fill(ranges, signal);
    });
    return waiting.set(name, withPrefix(weightsBySlot(table, places), `${name}.`));
  };

  return (recorder, name) => {
    const sequence = table.blocks.find((blocks) => blocks.includes(name));
    assert(sequence, `${table.folder} has no block ${name}`);
    const waiting = send(recorder, name);
    const weights = waiting.get(name) as Weights;
    waiting.delete(name);
    const next = sequence[sequence.indexOf(name) + 1];
    if (next !== undefined) send(recorder, next);
    return weights;
  };
}

/** Bindings begin at multiples of this. */
const alignment = 256;

/** Lays targets one behind the other into as few scratch storages as their size allows. */
function placeTargets(
  recorder: Recorder,
  label: string,
  targets: readonly Target[],
  storageBytes: number,
): Map<Target, WeightPlace> {
  const places = new Map<Target, WeightPlace>();
  let group: Target[] = [];
  let end = 0;
  const close = () => {
    const storage = recorder.scratchBytes(label, end);
    let byteOffset = 0;
    for (const target of group) {
      places.set(target, { storage, byteOffset });
      byteOffset += aligned(target.byteLength);
    }
    group = [];
    end = 0;
  };
  for (const target of targets) {
    if (group.length > 0 && end + aligned(target.byteLength) > storageBytes) close();
    group.push(target);
    end += aligned(target.byteLength);
  }
  if (group.length > 0) close();
  return places;
}

function aligned(byteLength: number): number {
  return Math.ceil(byteLength / alignment) * alignment;
}

function rangeOf({ storage: { label, buffer }, byteOffset }: WeightPlace): BufferRange {
  assert(buffer, `"${label}" has no buffer; the plan was not realized`);
  return { buffer, byteOffset };
}
