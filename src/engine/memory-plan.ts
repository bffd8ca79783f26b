// What a checkpoint and a picture size take on the device, before anything is read or allocated: the engine's own
// planning is run on a device that only counts. So the plan cannot drift from what the engine does.

import type { Checkpoint, OpenCheckpoint } from "./checkpoint.js";
import type { Device } from "./gpu/device.js";
import { Readback } from "./gpu/readback.js";
import { buildPicturePlan, type PictureShape } from "./picture-plan.js";
import { PromptEncoder } from "./prompt-encoder.js";
import { planTargets } from "./weights/layout.js";
import type { WeightSet } from "./weights/upload.js";

/** Bytes on the device. */
export type MemoryPlan = {
  /** By component folder. */
  weights: Record<string, number>;
  /** The text encoder's activations and one prompt's embeddings. */
  promptBytes: number;
  /** Everything that one picture size needs: latents, activations, tables, parameters. */
  pictureBytes: number;
  totalBytes: number;
};

/** Plans one picture size on a device with ordinary limits. */
export async function planMemory(
  checkpoint: OpenCheckpoint,
  shape: PictureShape,
  operands: "f32" | "f16" = "f32",
): Promise<MemoryPlan> {
  const device = countingDevice();
  const { config, tokenizer, components } = checkpoint;
  const [textEncoder, transformer, vae] = components.map(plannedWeights) as [WeightSet, WeightSet, WeightSet];
  const planned: Checkpoint = {
    config,
    tokenizer,
    textEncoder,
    transformer,
    vae,
    embed: () => Promise.reject(new TypeError("a planned checkpoint has no embeddings")),
    weightBytes: components.reduce((sum, c) => sum + c.weightBytes, 0),
    close: () => undefined,
  };
  const promptEncoder = await PromptEncoder.open(device, new Readback(device), planned, { operands });
  const promptBytes = device.allocatedBytes;
  await buildPicturePlan(device, planned, promptEncoder.embeds, shape, { operands });
  const pictureBytes = device.allocatedBytes - promptBytes;
  return {
    weights: Object.fromEntries(components.map(({ table, weightBytes }) => [table.folder, weightBytes])),
    promptBytes,
    pictureBytes,
    totalBytes: planned.weightBytes + promptBytes + pictureBytes,
  };
}

/** Weights with their true shapes and buffers that have a size and nothing in it. */
function plannedWeights({ table, files }: OpenCheckpoint["components"][number]): WeightSet {
  const targets = new Map(planTargets(table, files).map((target) => [target.slot.slot, target]));
  const find = (slot: string) => {
    const target = targets.get(slot);
    if (!target) throw new TypeError(`${table.folder} has no slot ${slot}`);
    const buffer = { label: slot, size: target.byteLength } as GPUBuffer;
    return { label: slot, buffer, target };
  };
  const weight = (slot: string) => {
    const { label, buffer, target } = find(slot);
    return { label, buffer, ...target };
  };
  return {
    matrix: weight,
    conv: weight,
    vector: (slot) => {
      const { label, buffer, target } = find(slot);
      return { label, buffer, length: target.cols };
    },
    byteLength: 0,
    close: () => undefined,
  };
}

/** A device that counts what is allocated on it; every other call of WebGPU does nothing and returns nothing. */
function countingDevice(): Device {
  const nothing: unknown = new Proxy(() => undefined, {
    get: (_, name) => (name === "then" ? undefined : nothing),
    apply: () => nothing,
  });
  const device = {
    gpu: nothing,
    features: new Set<string>(),
    // The binding limit of most desktop drivers; splitting changes no size by more than a few hundred bytes.
    limits: { bindingBytes: 2 ** 31 - 4, bufferBytes: 2 ** 40, dispatchFlops: 5e10, submissionFlops: 2.5e11 },
    isSoftware: false,
    subgroupSize: 0,
    matrixConfigs: [],
    tuning: new Map(),
    allocatedBytes: 0,
    allocations: 0,
    check: () => undefined,
    settled: <T>(work: Promise<T>) => work,
    allocating: async (_what: string, allocate: () => void) => allocate(),
    createBuffer: (label: string, bytes: number) => {
      const size = Math.max(16, Math.ceil(bytes / 16) * 16);
      device.allocatedBytes += size;
      return { label, size } as GPUBuffer;
    },
    destroyBuffer: (buffer: GPUBuffer) => {
      device.allocatedBytes -= buffer.size;
    },
  };
  return device as unknown as Device;
}
