// Measures loading: a checkpoint's weights from its files into buffers on the device, whole and by stage.
// A stage is the loader itself with the rest taken out: a source that answers at once, a device that keeps nothing. The
// stages overlap in a load, so their times do not add up. Files are read once before anything is timed: what a disk
// does is not measured, unless memory is too small to keep them.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCheckpoint } from "../src/engine/checkpoint.js";
import { openDevice } from "../src/engine/gpu/device.js";
import type { TensorFileSet } from "../src/engine/weights/files/tensor-files.js";
import type { SlotTable } from "../src/engine/weights/slots.js";
import { loadWeights, type UploadDevice } from "../src/engine/weights/upload.js";
import { folderSource } from "../src/node/checkpoint-folder.js";
import { createGpu } from "../src/node/dawn.js";
import { type DeviceBlock, describeDevice, type Spread, spread } from "./machine.js";
import { openWrittenTransformer, writeTransformer } from "./synthetic-files.js";

export type BenchLoadOptions = {
  /** A checkpoint's folder; default: a transformer of klein's widths, written to a temporary folder. */
  model?: string;
  /** Of the transformer that is written, about. */
  sizeBytes: number;
  runs: number;
  signal?: AbortSignal;
};

/**
 * `read`: files into memory, checked and packed; `check`: the same without reading; `write`: memory into the device's
 * buffers; `load`: all of it, as an engine does when it opens.
 */
export const loadStages = ["read", "check", "write", "load"] as const;
export type LoadStage = (typeof loadStages)[number];

export type BenchLoadResult = {
  device: DeviceBlock;
  case: { model: string; bytes: number; runs: number };
  /** Milliseconds, and gigabytes of the files a second in the fastest run. */
  stages: Record<LoadStage, Spread & { gbps: number }>;
};

type Component = { table: SlotTable; files: TensorFileSet };

/** Runs the benchmark. Errors: those of opening and loading a checkpoint; `output.unwritable` where none can be written. */
export async function benchLoad(options: BenchLoadOptions): Promise<BenchLoadResult> {
  if (options.model !== undefined) return measureFolder(options.model, options);
  const folder = await mkdtemp(join(tmpdir(), "daybreak-bench-"));
  try {
    await writeTransformer(folder, options.sizeBytes, options.signal);
    return await measureFolder(folder, options);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measureFolder(folder: string, options: BenchLoadOptions): Promise<BenchLoadResult> {
  const source = await folderSource(folder);
  try {
    const isWritten = options.model === undefined;
    const components = isWritten ? [await openWrittenTransformer(source)] : (await openCheckpoint(source)).components;
    return await measure(components, options);
  } finally {
    await source.close();
  }
}

async function measure(components: readonly Component[], options: BenchLoadOptions): Promise<BenchLoadResult> {
  const gpu = await createGpu();
  const description = await describeDevice(gpu);
  const device = await openDevice({ gpu });
  try {
    const discarding = discardingDevice(device);
    const instant = components.map(({ table, files }) => ({
      table,
      files: { ...files, source: instantSource(files) },
    }));
    const stages: Record<LoadStage, () => Promise<number>> = {
      read: () => loadAll(discarding, components, options.signal),
      check: () => loadAll(discarding, instant, options.signal),
      write: () => loadAll(device, instant, options.signal),
      load: () => loadAll(device, components, options.signal),
    };
    const bytes = await stages.read(); // fills the page cache
    const times: Record<LoadStage, number[]> = { read: [], check: [], write: [], load: [] };
    for (let run = 0; run < options.runs; run++) {
      for (const stage of loadStages) {
        const began = performance.now();
        await stages[stage]();
        times[stage].push(performance.now() - began);
      }
    }
    const summed = loadStages.map((stage) => {
      const { min, median } = spread(times[stage]);
      return [stage, { min, median, gbps: bytes / min / 1e6 }];
    });
    return {
      device: description,
      case: { model: options.model ?? "synthetic transformer", bytes, runs: options.runs },
      stages: Object.fromEntries(summed) as BenchLoadResult["stages"],
    };
  } finally {
    device.close();
  }
}

/** Loads all components and lets go of them; resolves to the bytes of the files that were read. */
async function loadAll(device: UploadDevice, components: readonly Component[], signal?: AbortSignal): Promise<number> {
  let bytes = 0;
  for (const { table, files } of components) {
    let total = 0;
    const onProgress = (_done: number, totalBytes: number) => {
      total = totalBytes;
    };
    // What was read before is not this load's to compare with: not every source here gives a file's bytes.
    const weights = await loadWeights(device, { ...files, digests: new Map() }, table, { signal, onProgress });
    weights.close();
    bytes += total;
  }
  return bytes;
}

/** Answers every read at once and leaves the memory as it is, unless nothing is in it: zeros are no weights. */
function instantSource({ source }: TensorFileSet): TensorFileSet["source"] {
  const readInto = async (_path: string, _begin: number, target: Uint8Array) => {
    if (target[0] === 0) target.fill(0x3c);
    return target.length;
  };
  return { ...source, readInto };
}

/** Takes every write and keeps nothing. */
function discardingDevice({ limits }: UploadDevice): UploadDevice {
  const nothing = () => undefined;
  const queue = { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: async () => undefined };
  const gpu = { queue, pushErrorScope: nothing, popErrorScope: async () => null };
  return {
    gpu: gpu as unknown as GPUDevice,
    limits,
    check: nothing,
    settled: (work) => work,
    createBuffer: (label, bytes) => ({ label, size: bytes }) as GPUBuffer,
    destroyBuffer: nothing,
  };
}
