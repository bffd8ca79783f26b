// What a checkpoint and a picture take on the device, before anything is read or allocated, and from that what stays on
// the device and what passes through it. The engine's own recording is run without a device, so a plan cannot drift from
// what the engine does.

import { DaybreakError } from "../errors.js";
import {
  allResident,
  type Component,
  isResident,
  keptBytes,
  type OpenCheckpoint,
  type Residencies,
  type Residency,
} from "./checkpoint.js";
import type { Decoding } from "./family.js";
import { bufferSize, type DeviceFacts, ordinaryGpu } from "./gpu/facts.js";
import { stagingBytes } from "./gpu/readback.js";
import type { PictureShape } from "./request.js";
import { ownedTensors, type PlanOptions, recordPlan, sum } from "./stages.js";
import { planTargets } from "./weights/layout.js";
import type { UsedPer } from "./weights/slots.js";
import { isStreamed, streamedBlocks } from "./weights/streaming.js";
import { type WeightSet, weightsBySlot, withPrefix } from "./weights/upload.js";

/** Bytes on the device at most at a time. */
export type MemoryPlan = {
  /** Whether a component's blocks stay on the device, or are read from the files whenever they are used. */
  residencies: Residencies;
  decoding: Decoding;
  /** Weights that stay, by component folder. */
  weights: Record<string, number>;
  /** What outlives pictures: the prompts' embeddings, and the buffer through which results are read back. */
  promptBytes: number;
  /** Everything that one picture size needs: latents, activations, blocks on their way, tables, parameters. */
  pictureBytes: number;
  totalBytes: number;
  /** Of the buffers of the picture: no device makes larger ones than its limit. */
  largestBufferBytes: number;
};

/** What a plan is made for. */
export type MemoryOptions = {
  operands?: "f32" | "f16";
  /** What is known of the device; default: an ordinary GPU. */
  facts?: DeviceFacts;
  /** Is told every workload, each time that it is posed, and how often the list runs that poses it. */
  onWorkload?: PlanOptions["onWorkload"];
  /** Is told every dispatch, after the workload that it belongs to. */
  onDispatch?: PlanOptions["onDispatch"];
};

/** What stays on the device, and how decoding goes about. */
type Strategy = { residencies: Residencies; decoding: Decoding };

/** The fastest first, the last needs the least. Pictures are the same. */
export const decodings: readonly [Decoding, Decoding, Decoding] = [
  { bandBytes: 256 * 2 ** 20, remakes: false },
  { bandBytes: 32 * 2 ** 20, remakes: true },
  { bandBytes: 2 * 2 ** 20, remakes: true },
];
const [whole, banded, narrow] = decodings;

/** Prompts are remembered, so what they need is read least often; what steps need is read in each of them. */
const givenUpFirst: readonly UsedPer[] = ["prompt", "picture", "step"];

/**
 * From the fastest to what needs the least. Reading a text encoder once for each new prompt costs more than a decoder that
 * does a little twice, so bands come before streaming.
 */
function strategiesFor(components: readonly Component[]): Strategy[] {
  let residencies = allResident(components);
  const strategies: Strategy[] = [
    { residencies, decoding: whole },
    { residencies, decoding: banded },
  ];
  for (const per of givenUpFirst) {
    const streamed = components.filter(({ table }) => table.usedPer === per && table.name in residencies);
    if (streamed.length === 0) continue;
    const changed = streamed.map(({ table }) => [table.name, "streamed" as Residency] as const);
    residencies = { ...residencies, ...Object.fromEntries(changed) };
    strategies.push({ residencies, decoding: banded });
  }
  strategies.push({ residencies, decoding: narrow });
  return strategies;
}

/**
 * The fastest plan within the budget and the device's buffers, of those that keep no more than `most` on the device.
 * Errors: `device.memory_budget_exceeded` with the least that a picture of this size takes; `device.limit_exceeded` if
 * one of its buffers is too large for the device in every plan.
 */
export async function choosePlan(
  checkpoint: OpenCheckpoint,
  shape: PictureShape,
  memoryBudgetBytes: number | undefined,
  { most, ...options }: MemoryOptions & { most?: Residencies } = {},
): Promise<MemoryPlan> {
  const { bufferBytes } = (options.facts ?? ordinaryGpu).limits;
  const picture = `a picture of ${shape.width}×${shape.height}`;
  let least = Number.POSITIVE_INFINITY;
  let smallestBuffer = Number.POSITIVE_INFINITY;
  for (const strategy of strategiesFor(checkpoint.components)) {
    if (most && keepsMore(strategy.residencies, most)) continue;
    const plan = planMemory(checkpoint, shape, options, strategy);
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
  return Object.entries(a).some(([name, residency]) => residency === "resident" && b[name] === "streamed");
}

/** Counts what one picture shape takes; by default with everything on the device. */
export function planMemory(
  { model, components }: OpenCheckpoint,
  shape: PictureShape,
  { operands = "f32", facts = ordinaryGpu, onWorkload, onDispatch }: MemoryOptions = {},
  { residencies, decoding }: Strategy = { residencies: allResident(components), decoding: whole },
): MemoryPlan {
  const kept = ownedTensors();
  const sets = components.map(
    (component) => [component.table.name, plannedWeights(component, residencies, facts.limits.bufferBytes)] as const,
  );
  const recorded = recordPlan({
    ...{ facts, shape, operands, decoding, onWorkload, onDispatch },
    record: model.recording(kept),
    weights: Object.fromEntries(sets),
  });
  const weights = Object.fromEntries(components.map((c) => [c.table.folder, keptBytes(c, residencies)]));
  const promptBytes = stagingBytes + sum(kept.sizes.map(bufferSize));
  const { byteLength: pictureBytes, largestBufferBytes } = recorded;
  const totalBytes = sum(Object.values(weights)) + promptBytes + pictureBytes;
  return { residencies, decoding, weights, promptBytes, pictureBytes, totalBytes, largestBufferBytes };
}

/** Weights with their true shapes, in buffers that have a size and nothing in it. */
function plannedWeights({ table, files }: Component, residencies: Residencies, bufferBytes: number): WeightSet {
  const targets = planTargets(table, files);
  const places = new Map(
    targets.map((target) => {
      const label = target.slot.slot;
      const storage = { label, byteLength: target.byteLength, buffer: undefined, isPlanned: false };
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
    rows: () => Promise.reject(new TypeError("a planned checkpoint has no embeddings")),
    byteLength: 0,
    close: () => undefined,
  };
}
