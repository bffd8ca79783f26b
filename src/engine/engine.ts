// The engine: open → generate → close. Owns the device, the checkpoint on it and the plans of recent picture sizes.
// Requests run one after the other in the order of their calls; a failed request leaves the engine usable, a failed
// device does not. Knows models by family.ts alone.

import { DaybreakError, engineClosed, requestCancelled, throwIfAborted, unlessAborted } from "../errors.js";
import {
  allResident,
  type Checkpoint,
  changeResidencies,
  type FillWeights,
  loadCheckpoint,
  type OpenCheckpoint,
  openCheckpoint,
  type Residencies,
  weightsFingerprint,
} from "./checkpoint.js";
import { type OpenTriedDeviceOptions, openTriedDevice } from "./device/trial.js";
import type { Decoding, Family, RecordStages, StageRecorder } from "./family.js";
import { generate } from "./generate.js";
import type { Timing } from "./gpu/command-list.js";
import type { Device } from "./gpu/device.js";
import type { DeviceFacts, DeviceLimits, Tuning } from "./gpu/facts.js";
import { Readback } from "./gpu/readback.js";
import { choosePlan, decodings, type MemoryOptions } from "./memory.js";
import { checkNames, type NamesOf } from "./options.js";
import {
  checkRequestNames,
  type ExpectedPicture,
  expectedShape,
  type GenerateHooks,
  type GenerateRequest,
  type GenerateResult,
  isJudged,
  type JudgedRequest,
  judgeRequest,
  type PictureShape,
  type Precision,
  type ProgressEvent,
  type RequestBounds,
  recheckRequest,
  shapeOf,
} from "./request.js";
import { type OwnedTensors, ownedTensors, type Plan, recordPlan, sum } from "./stages.js";
import { Turns } from "./turns.js";
import { type CheckpointSource, readCancelled } from "./weights/source.js";

export type EngineOptions = {
  /** A page's `navigator.gpu`, or Dawn's. */
  gpu: GPU;
  source: CheckpointSource;
  /** Default `auto`: f16 operands on GPUs that have `shader-f16`, f32 elsewhere. */
  precision?: Precision;
  /**
   * Most bytes the engine may take on the device. What does not fit stays in the files and passes through the device
   * whenever it is used: the text encoder's layers first, then the transformer's blocks. A picture that needs more room
   * than the expected one displaces more; the next one that leaves room reads that once and keeps it. What cannot fit at
   * all is refused with device.memory_budget_exceeded. Default: no limit, everything stays on the device.
   */
  memoryBudgetBytes?: number;
  /**
   * The picture to get ready for: under a budget, weights that leave it no room are not even loaded, and if it cannot be
   * drawn, the engine does not open. Default: one of the checkpoint's size without references, and no such demand.
   */
  expected?: ExpectedPicture;
  /** Smaller limits than the device's, to plan with. */
  limits?: Partial<DeviceLimits>;
  /** Measured choices of kernels, see tune.ts; default: the built-in ones. */
  tuning?: Tuning;
  /** Makes the weights on the device instead of reading them, to measure a checkpoint that is not there. */
  fillWeights?: FillWeights;
  /** Families of models that the checkpoint may be of; default: all that come with this package. */
  families?: readonly Family[];
  /** Is called once the engine is closed and its device freed: for what it was lent, such as open files. */
  onClosed?: () => void | Promise<void>;
  /** Loading progress. */
  onProgress?: (event: ProgressEvent) => void;
  /** Stops the loading. */
  signal?: AbortSignal;
};

export const engineOptionNames: NamesOf<EngineOptions> = {
  ...{ gpu: true, source: true, precision: true, memoryBudgetBytes: true, expected: true, limits: true, tuning: true },
  ...{ fillWeights: true, families: true, onClosed: true, onProgress: true, signal: true },
};

export type EngineInfo = {
  adapter: string;
  isSoftware: boolean;
  precision: "f32" | "f16";
  isDistilled: boolean;
  /** Default side of a picture, pixels. */
  sampleSize: number;
  /** Of the weights that stay on the device. */
  weightBytes: number;
  /** Which components' weights stay, of those that need not. */
  residencies: Residencies;
  /**
   * Of the weights, whatever files they are in: see weights/digest.ts. Null as long as some have not been read, which under
   * a budget is until the first picture, and where they are made instead of read.
   */
  fingerprint: string | null;
  /** Bytes of all buffers on the device now, and at most so far. */
  deviceBytes: number;
  peakDeviceBytes: number;
};

/** What the dispatches of one label took in a stage of a picture. */
export type StageTiming = Timing & { stage: string };

/** Plans that are kept: switching between a few sizes costs nothing. */
const maxPlans = 3;
/** Plans beyond this are given up when another size is asked for. */
const maxPlanBytes = 2 * 1024 ** 3;

type EngineParts = {
  device: Device;
  readback: Readback;
  opened: OpenCheckpoint;
  checkpoint: Checkpoint;
  /** Tensors that outlive plans, and what records plans with them. */
  kept: OwnedTensors;
  record: RecordStages;
  operands: "f32" | "f16";
  options: Pick<EngineOptions, "memoryBudgetBytes" | "fillWeights" | "onClosed">;
};

/** Draws pictures with one checkpoint on one device. */
export class Engine {
  readonly #parts: EngineParts;
  /** What was kept on the device when it was opened, and never more. */
  readonly #most: Residencies;
  readonly #plans = new Map<string, Plan>();
  #fingerprint: string | null = null;
  readonly #turns = new Turns();
  #closing: Promise<void> | undefined;

  private constructor(parts: EngineParts) {
    this.#parts = parts;
    this.#most = parts.checkpoint.residencies;
  }

  /**
   * Opens a device and loads a checkpoint onto it; under a budget as much of it as the expected picture leaves room for.
   * `source` must stay open as long as the engine.
   * Errors: `device.*`, `model.*`, `safetensors.*`, `weights.*`, `request.cancelled`; nothing stays open after one.
   */
  static async open(options: EngineOptions): Promise<Engine> {
    checkNames("Engine.open", options, engineOptionNames);
    const { precision = "auto", signal, onProgress, fillWeights } = options;
    checkPrecision(precision);
    checkGpu(options.gpu);
    throwIfAborted(signal, "loading");
    const device = await openDeviceFor(precision, options);
    try {
      throwIfAborted(signal, "loading");
      const operands = chooseOperands(device, precision);
      const readback = new Readback(device);
      const opened = await unlessAborted(openCheckpoint(options.source, options.families), signal, readCancelled);
      const residencies = await firstResidencies(opened, options, { operands, facts: device });
      const checkpoint = await loadCheckpoint(device, opened, { residencies, onProgress, signal, fillWeights });
      const kept = ownedTensors();
      const record = opened.model.recording(kept);
      await device.allocating(`the ${sum(kept.sizes)} bytes that prompts take`, () => kept.realize(device));
      kept.writeConstants(device);
      throwIfAborted(signal, "loading");
      const engine = new Engine({ device, readback, opened, checkpoint, kept, record, operands, options });
      engine.#fingerprint = await weightsFingerprint(opened.components);
      return engine;
    } catch (error) {
      device.close();
      throw error;
    }
  }

  get info(): EngineInfo {
    const { device, checkpoint, opened, operands } = this.#parts;
    const { info, isSoftware, allocatedBytes, peakBytes } = device;
    const { weightBytes, residencies } = checkpoint;
    const { isDistilled, defaults } = opened.model.bounds;
    return {
      adapter: info.description || [info.vendor, info.architecture].join(" ").trim(),
      isSoftware,
      precision: operands,
      isDistilled,
      sampleSize: defaults.width,
      weightBytes,
      residencies,
      fingerprint: this.#fingerprint,
      deviceBytes: allocatedBytes,
      peakDeviceBytes: peakBytes,
    };
  }

  /** What ended the device, if anything did: no request succeeds on this engine any more. */
  get failure(): DaybreakError | undefined {
    return this.#parts.device.failure;
  }

  /** What requests may hold, and what they get where they leave something open. */
  get bounds(): RequestBounds {
    return this.#parts.opened.model.bounds;
  }

  /**
   * Fills in what a request leaves open, checks all of it and makes tokens of its prompts; nothing is drawn. What it gives
   * may be generated as often as wanted: `generate({ ...judged, onProgress })`.
   * Errors: `request.*`, `reference.*`.
   */
  judge(request: GenerateRequest): JudgedRequest {
    checkRequestNames(request);
    return judgeRequest(request, this.#parts.opened.model);
  }

  /**
   * Generates what one request asks for; several calls wait for each other, and one whose signal is aborted fails at once,
   * also while it waits. A request that {@link judge} has judged
   * already is not judged again, only checked for what could harm.
   * Errors: `request.*`, `reference.*`, `numerics.*`, `device.*`, `engine.closed`.
   */
  async generate(request: GenerateRequest | (JudgedRequest & GenerateHooks)): Promise<GenerateResult> {
    checkRequestNames(request);
    return this.#inTurn(request.signal, () => this.#generate(request));
  }

  /**
   * Times every dispatch of a picture of this size without references, of one step for all. They are the very ones that
   * {@link generate} runs.
   * Errors: `device.feature_missing` without timestamp-query; those of {@link generate}.
   */
  profile(size: Pick<GenerateRequest, "width" | "height">): Promise<StageTiming[]> {
    return this.#inTurn(undefined, () => this.#profile(size));
  }

  /** Waits for the requests that were made, then frees the device. Every call resolves when that is done. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #inTurn<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    if (this.#closing) throw engineClosed();
    return this.#turns.take((turn) => unlessAborted(turn, signal, requestCancelled), work);
  }

  async #close(): Promise<void> {
    const { device, readback, checkpoint, kept, options } = this.#parts;
    try {
      await this.#turns.idle;
      for (const plan of this.#plans.values()) plan.close();
      kept.close(device);
      checkpoint.close();
      readback.close();
      device.close();
    } finally {
      await options.onClosed?.();
    }
  }

  async #generate(request: GenerateRequest | (JudgedRequest & GenerateHooks)): Promise<GenerateResult> {
    const started = performance.now();
    const { device, readback, opened } = this.#parts;
    const { model } = opened;
    device.check();
    throwIfAborted(request.signal);
    // Everything that can be refused is refused before anything is built for it.
    if (isJudged(request)) recheckRequest(request, model);
    const judged = isJudged(request) ? request : this.judge(request);
    const plan = await this.#plan(shapeOf(judged, model.bounds), request);
    try {
      const result = await generate(plan.stages, judged, { device, readback, signal: request.signal }, request);
      this.#fingerprint ??= await weightsFingerprint(opened.components);
      result.timings.total_ms = performance.now() - started;
      return result;
    } finally {
      if (request.trace) plan.close();
    }
  }

  async #profile({ width, height }: Pick<GenerateRequest, "width" | "height">): Promise<StageTiming[]> {
    const { device, opened } = this.#parts;
    device.check();
    if (!device.features.has("timestamp-query")) {
      throw new DaybreakError(
        "device.feature_missing",
        "timing kernels needs timestamp-query, which this device lacks",
      );
    }
    const { shape } = expectedShape({ width, height }, opened.model.bounds);
    const plan = await this.#plan(shape);
    const timings: StageTiming[] = [];
    try {
      for (const [stage, list] of plan.stages.lists) {
        await list.profile(); // warms up
        for (const timing of await list.profile()) timings.push({ stage, ...timing });
      }
      return timings;
    } finally {
      // What its stages hold now is no prompt's.
      this.#forget(plan);
    }
  }

  /** The plan of this size: a kept one or a new one. Plans that trace are not kept; whoever asked closes them. */
  async #plan(shape: PictureShape, { trace, signal }: GenerateHooks = {}): Promise<Plan> {
    const { device, opened, checkpoint, operands, options } = this.#parts;
    const key = JSON.stringify(shape);
    const known = trace ? undefined : this.#plans.get(key);
    if (known) {
      this.#plans.delete(key);
      this.#plans.set(key, known); // the last to be given up
      return known;
    }
    let decoding: Decoding | undefined;
    if (options.memoryBudgetBytes === undefined) {
      this.#makeRoom();
    } else {
      const planning = { operands, facts: device, most: this.#most };
      const chosen = await choosePlan(opened, shape, options.memoryBudgetBytes, planning);
      this.#makeRoom(); // a picture that is refused costs nobody's plan
      decoding = chosen.decoding;
      // Lets weights go that leave no room for it, and brings back others; no plan refers to them now.
      const changing = { signal, fillWeights: options.fillWeights };
      await changeResidencies(device, opened, checkpoint, chosen.residencies, changing);
    }
    const traced = trace && (trace.detail ? "detail" : "stages"); // what it keeps is beyond the budget
    const plan = await this.#build(shape, decoding ? [decoding] : decodings, traced);
    if (!trace) this.#plans.set(key, plan);
    return plan;
  }

  /**
   * Makes a plan with the first of these ways of decoding for which the device has buffers and memory.
   * Errors: `device.limit_exceeded`, `device.out_of_memory`; nothing is left after one.
   */
  async #build(shape: PictureShape, ways: readonly Decoding[], trace: StageRecorder["trace"]): Promise<Plan> {
    const { device, checkpoint, record, operands } = this.#parts;
    let failure: unknown;
    for (const decoding of ways) {
      try {
        const { weights } = checkpoint;
        return await recordPlan({ facts: device, record, weights, shape, operands, decoding, trace }).realize(device);
      } catch (error) {
        failure = error;
        if (device.failure || !isTooLarge(error)) break;
      }
    }
    throw failure;
  }

  #forget(plan: Plan): void {
    plan.close();
    for (const [key, kept] of this.#plans) if (kept === plan) this.#plans.delete(key);
  }

  /** Gives up plans that were not used for longest, and under a budget all: it is for one picture at a time. */
  #makeRoom(): void {
    let bytes = sum([...this.#plans.values()].map((plan) => plan.byteLength));
    for (const [key, plan] of this.#plans) {
      if (this.#plans.size < maxPlans && bytes < maxPlanBytes && this.#parts.options.memoryBudgetBytes === undefined)
        break;
      bytes -= plan.byteLength;
      plan.close();
      this.#plans.delete(key);
    }
  }
}

/** Whether the device has no room for what was asked. */
function isTooLarge(error: unknown): boolean {
  return error instanceof DaybreakError && /^device\.(limit_exceeded|out_of_memory)$/.test(error.code);
}

/**
 * What stays on the device so that the expected picture fits; if nothing in particular is expected and one of the default
 * size does not fit, so that the smallest one does. Errors: those of {@link choosePlan}.
 */
async function firstResidencies(
  opened: OpenCheckpoint,
  { memoryBudgetBytes, expected }: Pick<EngineOptions, "memoryBudgetBytes" | "expected">,
  options: MemoryOptions,
): Promise<Residencies> {
  const { bounds } = opened.model;
  const choose = async (picture: ExpectedPicture) =>
    choosePlan(opened, expectedShape(picture, bounds).shape, memoryBudgetBytes, options);
  if (memoryBudgetBytes === undefined) {
    if (expected) await choose(expected);
    return allResident(opened.components);
  }
  if (expected) return (await choose(expected)).residencies;
  const side = bounds.sizeMultiple;
  const plan = choose({}).catch(() => choose({ width: side, height: side }));
  return (await plan).residencies;
}

/** Pages often pass on a `navigator.gpu` that is not there. */
function checkGpu(gpu: unknown): void {
  if (gpu === undefined || gpu === null) {
    throw new DaybreakError(
      "device.no_adapter",
      `got ${gpu} as gpu, expected navigator.gpu, which needs a browser with WebGPU and a page from https: or localhost, or Dawn's GPU`,
    );
  }
  if (typeof (gpu as Partial<GPU>).requestAdapter === "function") return;
  throw new DaybreakError(
    "request.option_invalid",
    `got a gpu of type ${typeof gpu}, expected navigator.gpu or Dawn's`,
  );
}

export function checkPrecision(precision: Precision): void {
  if (["auto", "f32", "f16"].includes(precision)) return;
  throw new DaybreakError("request.option_invalid", `got precision ${precision}, expected auto, f32 or f16`);
}

/** A tried device. Only operands in f16 go to matrix units; without any these need no trial. */
export function openDeviceFor(
  precision: Precision,
  { gpu, limits, tuning, signal }: OpenTriedDeviceOptions,
): Promise<Device> {
  const needed = precision === "f32" ? { ...limits, matrixRows: Number.POSITIVE_INFINITY } : limits;
  return openTriedDevice({ gpu, limits: needed, tuning, signal });
}

/** What `precision` means on a device. */
export function chooseOperands(facts: DeviceFacts, precision: Precision): "f32" | "f16" {
  if (precision !== "auto") return precision;
  // Packing pays where memory bandwidth is short; a CPU has enough of it and no instructions to unpack with.
  return facts.features.has("shader-f16") && !facts.isSoftware ? "f16" : "f32";
}
