// What a checkpoint and a picture size take on the device, before anything is read or allocated, and from that what stays
// on the device and what passes through it. It is the engine's own recording that is counted, so a plan cannot drift from
// what the engine does.

import { DaybreakError } from "../errors.js";
import {
  allResident,
  type Checkpoint,
  type Component,
  isResident,
  keptBytes,
  type OpenCheckpoint,
  type Residencies,
} from "./checkpoint.js";
import { bufferSize, type DeviceFacts, ordinaryGpu } from "./gpu/facts.js";
import { stagingBytes } from "./gpu/readback.js";
import type { Workload } from "./ops/variants.js";
import { type Decoding, decodings, type PictureShape, recordPicture } from "./picture-plan.js";
import { promptTensors } from "./prompt-encoder.js";
import { planTargets } from "./weights/layout.js";
import { isStreamed, streamedBlocks } from "./weights/streaming.js";
import { type WeightSet, weightsBySlot, withPrefix } from "./weights/upload.js";

/** Bytes on the device at most at a time. */
export type MemoryPlan = {
  /** Whether a component's blocks stay on the device, or are read from the files whenever they are used. */
  residencies: Residencies;
  decoding: Decoding;
  /** Weights that stay, by component folder. */
  weights: Record<string, number>;
  /** The prompts' embeddings. */
  promptBytes: number;
  /** Everything that one picture size needs: latents, activations, blocks on their way, tables, parameters. */
  pictureBytes: number;
  totalBytes: number;
  /** Of the buffers of the picture: no device makes larger ones than its limit. */
  largestBufferBytes: number;
};

/** What a plan is made for. */
export type PlanOptions = {
  operands?: "f32" | "f16";
  /** Of the device whose limits and kernels count; default: an ordinary GPU's. */
  facts?: DeviceFacts;
  /** Is told of every workload, each time, and the list that it is part of, such as "denoise". */
  onWorkload?: (workload: Workload, list: string) => void;
};

/** What stays on the device, from the fastest to what needs the least. */
type Strategy = { residencies: Residencies; decoding: Decoding };

const [whole, banded, narrow] = decodings;
const textStreamed: Residencies = { textEncoder: "streamed", transformer: "resident" };
const streamed: Residencies = { textEncoder: "streamed", transformer: "streamed" };

/** Reading a text encoder once for each new prompt costs more than a VAE that does a little twice. */
const strategies: readonly Strategy[] = [
  { residencies: allResident, decoding: whole },
  { residencies: allResident, decoding: banded },
  { residencies: textStreamed, decoding: banded },
  { residencies: streamed, decoding: banded },
  { residencies: streamed, decoding: narrow },
];

/**
 * The fastest plan within the budget and the device's buffers, of those that keep no more than `most` on the device.
 * Errors: `device.memory_budget_exceeded` with the least that a picture of this size takes; `device.limit_exceeded` if
 * one of its buffers is too large for the device in every plan.
 */
export async function choosePlan(
  checkpoint: OpenCheckpoint,
  shape: PictureShape,
  memoryBudgetBytes: number | undefined,
  options: PlanOptions & { most?: Residencies } = {},
): Promise<MemoryPlan> {
  const { most = allResident } = options;
  const { bufferBytes } = (options.facts ?? ordinaryGpu).limits;
  const picture = `a picture of ${shape.width}×${shape.height}`;
  let least = Number.POSITIVE_INFINITY;
  let smallestBuffer = Number.POSITIVE_INFINITY;
  for (const strategy of strategies) {
    if (keepsMore(strategy.residencies, most)) continue;
    const plan = await planMemory(checkpoint, shape, options, strategy);
    smallestBuffer = Math.min(smallestBuffer, plan.largestBufferBytes);
    if (plan.largestBufferBytes > bufferBytes) continue;
    if (plan.totalBytes <= (memoryBudgetBytes ?? Number.POSITIVE_INFINITY)) return plan;
    least = Math.min(least, plan.totalBytes);
  }
  if (least === Number.POSITIVE_INFINITY) {
    throw new DaybreakError(
      "device.limit_exceeded",
      `${picture} needs a buffer of at least ${smallestBuffer} bytes, the device allows ${bufferBytes}: ask for a smaller picture`,
    );
  }
  throw new DaybreakError(
    "device.memory_budget_exceeded",
    `${picture} takes at least ${least} bytes on the device, the memory budget is ${memoryBudgetBytes}: raise it, or use a smaller checkpoint or picture`,
  );
}

function keepsMore(a: Residencies, b: Residencies): boolean {
  const more = (name: keyof Residencies) => a[name] === "resident" && b[name] === "streamed";
  return more("textEncoder") || more("transformer");
}

/** Counts what one picture size takes. */
export async function planMemory(
  checkpoint: OpenCheckpoint,
  shape: PictureShape,
  { operands = "f32", facts = ordinaryGpu, onWorkload }: PlanOptions = {},
  { residencies, decoding }: Strategy = { residencies: allResident, decoding: whole },
): Promise<MemoryPlan> {
  const { config, tokenizer, components } = checkpoint;
  const sets = components.map((component) => plannedWeights(component, residencies, facts.limits.bufferBytes));
  const [textEncoder, transformer, vae] = sets as [WeightSet, WeightSet, WeightSet];
  const weights = Object.fromEntries(components.map((c) => [c.table.folder, keptBytes(c, residencies)]));
  const weightBytes = Object.values(weights).reduce((sum, bytes) => sum + bytes, 0);
  const planned: Checkpoint = {
    config,
    tokenizer,
    textEncoder,
    transformer,
    vae,
    residencies,
    embed: () => Promise.reject(new TypeError("a planned checkpoint has no embeddings")),
    weightBytes,
    close: () => undefined,
  };
  const prompt = promptTensors(config);
  const { rope, remembered, ...own } = prompt;
  const promptParts = [...Object.values(own), rope.cos, rope.sin, ...remembered];
  const promptBytes = promptParts.reduce((sum, { storage }) => sum + bufferSize(storage.byteLength), stagingBytes);
  const picture = recordPicture(facts, planned, prompt, shape, { operands, decoding, onWorkload });
  const { byteLength: pictureBytes, largestBufferBytes } = picture;
  const totalBytes = weightBytes + promptBytes + pictureBytes;
  return { residencies, decoding, weights, promptBytes, pictureBytes, totalBytes, largestBufferBytes };
}

/** Weights with their true shapes and buffers that have a size and nothing in it. */
function plannedWeights({ table, files }: Component, residencies: Residencies, bufferBytes: number): WeightSet {
  const targets = planTargets(table, files);
  const places = new Map(
    targets.map((target) => {
      const label = target.slot.slot;
      const buffer = { label, size: target.byteLength } as GPUBuffer;
      const storage = { label, byteLength: target.byteLength, buffer, isPlanned: false };
      return [target, { storage, byteOffset: 0 }] as const;
    }),
  );
  const weights = weightsBySlot(table, places);
  const streamed = targets.filter(({ slot }) => isStreamed(table, slot.slot));
  return {
    ...weights,
    block: isResident(table, residencies)
      ? (_, name) => withPrefix(weights, `${name}.`)
      : streamedBlocks(table, streamed, bufferBytes, async () => undefined),
    byteLength: 0,
    close: () => undefined,
  };
}
