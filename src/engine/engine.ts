// The engine: open → generate → close. Owns the device, the checkpoint on it and the plans of recent picture sizes.
// Requests run one after the other in the order of their calls; a failed request leaves the engine usable, a failed
// device does not.

import { DaybreakError, throwIfAborted, unlessAborted } from "../errors.js";
import {
  allResident,
  type Checkpoint,
  changeResidencies,
  type FillWeights,
  loadCheckpoint,
  type OpenCheckpoint,
  openCheckpoint,
  type Residencies,
} from "./checkpoint.js";
import { type OpenTriedDeviceOptions, openTriedDevice } from "./device-trial.js";
import type { Timing } from "./gpu/command-list.js";
import type { Device } from "./gpu/device.js";
import type { DeviceFacts, DeviceLimits, Tuning } from "./gpu/facts.js";
import { Readback } from "./gpu/readback.js";
import { choosePlan, type PlanOptions } from "./memory-plan.js";
import { checkReference, checkReferenceSize, preparedSize, prepareReference } from "./models/flux2/reference-image.js";
import {
  buildPicturePlan,
  type Decoding,
  modulatedSteps,
  type PicturePlan,
  type PictureShape,
} from "./picture-plan.js";
import { generateImages } from "./pipeline.js";
import { PromptEncoder } from "./prompt-encoder.js";
import {
  type GenerateRequest,
  type GenerateResult,
  type Precision,
  type ProgressEvent,
  type RgbImage,
  resolveRequest,
} from "./request.js";
import { requestDefaults } from "./request-defaults.js";
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
  /** Measured choices of kernels, see tuning.ts; default: the built-in ones. */
  tuning?: Tuning;
  /** Makes the weights on the device instead of reading them, to measure a checkpoint that is not there. */
  fillWeights?: FillWeights;
  /** Loading progress. */
  onProgress?: (event: ProgressEvent) => void;
  /** Stops the loading. */
  signal?: AbortSignal;
};

/** As a request has it; of references only the sizes, in pixels. */
export type ExpectedPicture = Pick<GenerateRequest, "width" | "height" | "guidance"> & {
  references?: readonly { width: number; height: number }[];
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
  /** Which components' weights stay. */
  residencies: Residencies;
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
  promptEncoder: PromptEncoder;
  operands: "f32" | "f16";
  memoryBudgetBytes: number | undefined;
  fillWeights: FillWeights | undefined;
};

/** Draws pictures with one checkpoint on one device. */
export class Engine {
  readonly #device: Device;
  readonly #readback: Readback;
  readonly #opened: OpenCheckpoint;
  readonly #checkpoint: Checkpoint;
  readonly #promptEncoder: PromptEncoder;
  readonly #operands: "f32" | "f16";
  readonly #memoryBudgetBytes: number | undefined;
  readonly #fillWeights: FillWeights | undefined;
  /** What was kept on the device when it was opened, and never more. */
  readonly #most: Residencies;
  readonly #plans = new Map<string, PicturePlan>();
  #queue: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  private constructor(parts: EngineParts) {
    this.#device = parts.device;
    this.#readback = parts.readback;
    this.#opened = parts.opened;
    this.#checkpoint = parts.checkpoint;
    this.#most = parts.checkpoint.residencies;
    this.#promptEncoder = parts.promptEncoder;
    this.#operands = parts.operands;
    this.#memoryBudgetBytes = parts.memoryBudgetBytes;
    this.#fillWeights = parts.fillWeights;
  }

  /**
   * Opens a device and loads a checkpoint onto it; under a budget as much of it as the expected picture leaves room for.
   * `source` must stay open as long as the engine.
   * Errors: `device.*`, `model.*`, `safetensors.*`, `weights.*`, `request.cancelled`; nothing stays open after one.
   */
  static async open(options: EngineOptions): Promise<Engine> {
    const { precision = "auto", memoryBudgetBytes, signal, onProgress, fillWeights } = options;
    checkPrecision(precision);
    throwIfAborted(signal, "loading");
    const device = await openDeviceFor(precision, options);
    try {
      throwIfAborted(signal, "loading");
      const operands = chooseOperands(device, precision);
      const readback = new Readback(device);
      const opened = await unlessAborted(openCheckpoint(options.source), signal, readCancelled);
      const residencies = await firstResidencies(opened, options, { operands, facts: device });
      const loading = { residencies, onProgress, signal, fillWeights };
      const checkpoint = await loadCheckpoint(device, opened, loading);
      const promptEncoder = await PromptEncoder.open(device, readback, checkpoint);
      throwIfAborted(signal, "loading");
      const loaded = { opened, checkpoint, promptEncoder };
      return new Engine({ device, readback, ...loaded, operands, memoryBudgetBytes, fillWeights });
    } catch (error) {
      device.close();
      throw error;
    }
  }

  get info(): EngineInfo {
    const { info, isSoftware, allocatedBytes, peakBytes } = this.#device;
    const { config, weightBytes, residencies } = this.#checkpoint;
    const { modelIndex, vae } = config;
    return {
      adapter: info.description || [info.vendor, info.architecture].join(" ").trim(),
      isSoftware,
      precision: this.#operands,
      isDistilled: modelIndex.isDistilled,
      sampleSize: vae.sampleSize,
      weightBytes,
      residencies,
      deviceBytes: allocatedBytes,
      peakDeviceBytes: peakBytes,
    };
  }

  /** What ended the device, if anything did: no request succeeds on this engine any more. */
  get failure(): DaybreakError | undefined {
    return this.#device.failure;
  }

  /**
   * Generates the images of one request; several calls wait for each other.
   * Errors: `request.*`, `reference.*`, `numerics.*`, `device.*`, `engine.closed`.
   */
  generate(request: GenerateRequest): Promise<GenerateResult> {
    return this.#inTurn(() => this.#generate(request));
  }

  /**
   * Times every dispatch of a picture of this size without references, of one step for all. They are the very ones that
   * {@link generate} runs.
   * Errors: `device.feature_missing` without timestamp-query; those of {@link generate}.
   */
  profile(size: Pick<GenerateRequest, "width" | "height">): Promise<StageTiming[]> {
    return this.#inTurn(() => this.#profile(size));
  }

  /** Waits for the requests that were made, then frees the device. Every call resolves when that is done. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing) {
      return Promise.reject(new DaybreakError("engine.closed", "the engine was closed; open it anew"));
    }
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  async #close(): Promise<void> {
    await this.#queue;
    for (const plan of this.#plans.values()) plan.close();
    this.#promptEncoder.close();
    this.#checkpoint.close();
    this.#readback.close();
    this.#device.close();
  }

  async #generate(request: GenerateRequest): Promise<GenerateResult> {
    const started = performance.now();
    this.#device.check();
    throwIfAborted(request.signal);
    const { config, tokenizer } = this.#opened;
    const defaults = requestDefaults(config);
    // Everything that can be refused is refused before the first reference is resized.
    const given = checkReferences(request.references);
    const first = given[0] && preparedSize(given[0].width, given[0].height, defaults.tokenPixels);
    const resolved = resolveRequest(request, defaults, first);
    // A prompt that does not fit is found out before anything is built for it.
    tokenizer.encode(resolved.prompt);
    if (resolved.isGuided) tokenizer.encode(resolved.negativePrompt);
    const references = given.map((image) => prepareReference(image, defaults.tokenPixels));
    const { width, height, isGuided } = resolved;
    const sizes = references.map((reference) => ({ width: reference.width, height: reference.height }));
    const shape = { width, height, references: sizes, isGuided };
    const plan = await this.#plan(shape, request);
    try {
      const pipeline = {
        device: this.#device,
        readback: this.#readback,
        checkpoint: this.#checkpoint,
        promptEncoder: this.#promptEncoder,
        plan,
      };
      const result = await generateImages(pipeline, resolved, references, request);
      result.timings.total_ms = performance.now() - started;
      return result;
    } finally {
      if (request.trace) plan.close();
    }
  }

  async #profile({ width, height }: Pick<GenerateRequest, "width" | "height">): Promise<StageTiming[]> {
    this.#device.check();
    if (!this.#device.features.has("timestamp-query")) {
      throw new DaybreakError(
        "device.feature_missing",
        "timing kernels needs timestamp-query, which this device lacks",
      );
    }
    const asked = resolveRequest({ prompt: "", width, height }, requestDefaults(this.#opened.config));
    const shape = { width: asked.width, height: asked.height, references: [], isGuided: asked.isGuided };
    const plan = await this.#plan(shape);
    const { positive } = plan.contexts;
    positive.holds = undefined; // what is projected now is no prompt's
    const lists = {
      prompt: plan.prompt.list,
      context: positive.list,
      [`modulation of ${modulatedSteps} steps`]: plan.modulate,
      "one step": plan.denoise,
      decode: plan.decode,
    };
    const timings: StageTiming[] = [];
    for (const [stage, list] of Object.entries(lists)) {
      await list.profile(); // warms up
      for (const timing of await list.profile()) timings.push({ stage, ...timing });
    }
    return timings;
  }

  /** The plan of this size: a kept one or a new one. Plans that trace are not kept; whoever asked closes them. */
  async #plan(
    shape: PictureShape,
    { trace, signal }: Pick<GenerateRequest, "trace" | "signal"> = {},
  ): Promise<PicturePlan> {
    const key = JSON.stringify(shape);
    const known = trace ? undefined : this.#plans.get(key);
    if (known) {
      this.#plans.delete(key);
      this.#plans.set(key, known); // the last to be given up
      return known;
    }
    const device = this.#device;
    const operands = this.#operands;
    let decoding: Decoding | undefined;
    if (this.#memoryBudgetBytes === undefined) {
      this.#makeRoom();
    } else {
      const options = { operands, facts: device, most: this.#most };
      const chosen = await choosePlan(this.#opened, shape, this.#memoryBudgetBytes, options);
      this.#makeRoom(); // a picture that is refused costs nobody's plan
      decoding = chosen.decoding;
      // Lets weights go that leave no room for it, and brings back others; no plan refers to them now.
      const changing = { signal, fillWeights: this.#fillWeights };
      await changeResidencies(device, this.#opened, this.#checkpoint, chosen.residencies, changing);
    }
    const plan = await buildPicturePlan(device, this.#checkpoint, this.#promptEncoder.tensors, shape, {
      operands,
      decoding,
      trace: trace && (trace.detail ? "detail" : "stages"), // what it keeps is beyond the budget
    });
    if (!trace) this.#plans.set(key, plan);
    return plan;
  }

  /** Gives up plans that were not used for longest, and under a budget all: it is for one picture at a time. */
  #makeRoom(): void {
    let bytes = [...this.#plans.values()].reduce((sum, plan) => sum + plan.byteLength, 0);
    for (const [key, plan] of this.#plans) {
      if (this.#plans.size < maxPlans && bytes < maxPlanBytes && this.#memoryBudgetBytes === undefined) break;
      bytes -= plan.byteLength;
      plan.close();
      this.#plans.delete(key);
    }
  }
}

/**
 * What stays on the device so that the expected picture fits; if nothing in particular is expected and one of the default
 * size does not fit, so that the smallest one does. Errors: those of {@link choosePlan}.
 */
async function firstResidencies(
  opened: OpenCheckpoint,
  { memoryBudgetBytes, expected }: Pick<EngineOptions, "memoryBudgetBytes" | "expected">,
  options: PlanOptions,
): Promise<Residencies> {
  const choose = (picture: ExpectedPicture) =>
    choosePlan(opened, expectedShape(opened, picture), memoryBudgetBytes, options);
  if (memoryBudgetBytes === undefined) {
    if (expected) await choose(expected);
    return allResident;
  }
  if (expected) return (await choose(expected)).residencies;
  const { tokenPixels } = requestDefaults(opened.config);
  const plan = choose({}).catch(() => choose({ width: tokenPixels, height: tokenPixels }));
  return (await plan).residencies;
}

function expectedShape({ config }: OpenCheckpoint, { references = [], ...asked }: ExpectedPicture): PictureShape {
  const defaults = requestDefaults(config);
  for (const { width, height } of references) checkReferenceSize(width, height);
  const sizes = references.map(({ width, height }) => preparedSize(width, height, defaults.tokenPixels));
  const { width, height, isGuided } = resolveRequest({ prompt: "", ...asked }, defaults, sizes[0]);
  return { width, height, references: sizes, isGuided };
}

function checkReferences(references: RgbImage[] = []): RgbImage[] {
  if (!Array.isArray(references)) {
    throw new DaybreakError("reference.not_an_image", `got references of type ${typeof references}, expected an array`);
  }
  for (const image of references) checkReference(image);
  return references;
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
