// The engine: open → generate → close. Owns the device, the checkpoint on it and the plans of recent picture sizes.
// Requests run one after the other in the order of their calls; a failed request leaves the engine usable, a failed
// device does not.

import { DaybreakError } from "../errors.js";
import { type Checkpoint, type FillWeights, loadCheckpoint } from "./checkpoint.js";
import { type Device, type DeviceLimits, openDevice } from "./gpu/device.js";
import { Readback } from "./gpu/readback.js";
import { checkReference, preparedSize, prepareReference } from "./models/flux2/reference-image.js";
import { buildPicturePlan, type PicturePlan, type PictureShape } from "./picture-plan.js";
import { generateImages, throwIfAborted } from "./pipeline.js";
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
import type { CheckpointSource } from "./weights/source.js";

export type EngineOptions = {
  /** A page's `navigator.gpu`, or Dawn's. */
  gpu: GPU;
  source: CheckpointSource;
  /** Default `auto`: f16 operands on GPUs that have `shader-f16`, f32 elsewhere. */
  precision?: Precision;
  /** Most bytes the engine may take on the device; more is refused with device.memory_budget_exceeded. */
  memoryBudgetBytes?: number;
  /** Smaller limits than the device's, to plan with. */
  limits?: Partial<DeviceLimits>;
  /** Makes the weights on the device instead of reading them, to measure a checkpoint that is not there. */
  fillWeights?: FillWeights;
  /** Loading progress. */
  onProgress?: (event: ProgressEvent) => void;
  /** Stops the loading. */
  signal?: AbortSignal;
};

export type EngineInfo = {
  adapter: string;
  isSoftware: boolean;
  precision: "f32" | "f16";
  isDistilled: boolean;
  /** Default side of a picture, pixels. */
  sampleSize: number;
  weightBytes: number;
  /** Bytes of all buffers on the device now. */
  deviceBytes: number;
};

/** Plans that are kept: switching between a few sizes costs nothing. */
const maxPlans = 3;
/** Plans beyond this are given up when another size is asked for. */
const maxPlanBytes = 2 * 1024 ** 3;

type EngineParts = {
  device: Device;
  readback: Readback;
  checkpoint: Checkpoint;
  promptEncoder: PromptEncoder;
  operands: "f32" | "f16";
  memoryBudgetBytes: number | undefined;
};

/** Draws pictures with one checkpoint on one device. */
export class Engine {
  readonly #device: Device;
  readonly #readback: Readback;
  readonly #checkpoint: Checkpoint;
  readonly #operands: "f32" | "f16";
  readonly #memoryBudgetBytes: number | undefined;
  readonly #promptEncoder: PromptEncoder;
  readonly #plans = new Map<string, PicturePlan>();
  #queue: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  private constructor(parts: EngineParts) {
    this.#device = parts.device;
    this.#readback = parts.readback;
    this.#checkpoint = parts.checkpoint;
    this.#promptEncoder = parts.promptEncoder;
    this.#operands = parts.operands;
    this.#memoryBudgetBytes = parts.memoryBudgetBytes;
  }

  /**
   * Opens a device and loads a checkpoint onto it.
   * Errors: `device.*`, `model.*`, `safetensors.*`, `weights.*`, `request.cancelled`; nothing stays open after one.
   */
  static async open(options: EngineOptions): Promise<Engine> {
    const { precision = "auto", memoryBudgetBytes, signal } = options;
    checkPrecision(precision);
    throwIfAborted(signal, "loading");
    const device = await openDevice({ gpu: options.gpu, limits: options.limits });
    try {
      throwIfAborted(signal, "loading");
      const operands = chooseOperands(device, precision);
      const readback = new Readback(device);
      const checkpoint = await loadCheckpoint(device, options.source, options);
      const promptEncoder = await PromptEncoder.open(device, readback, checkpoint, { operands, memoryBudgetBytes });
      throwIfAborted(signal, "loading");
      return new Engine({ device, readback, checkpoint, promptEncoder, operands, memoryBudgetBytes });
    } catch (error) {
      device.close();
      throw error;
    }
  }

  get info(): EngineInfo {
    const { info, isSoftware, allocatedBytes } = this.#device;
    const { modelIndex, vae } = this.#checkpoint.config;
    return {
      adapter: info.description || [info.vendor, info.architecture].join(" ").trim(),
      isSoftware,
      precision: this.#operands,
      isDistilled: modelIndex.isDistilled,
      sampleSize: vae.sampleSize,
      weightBytes: this.#checkpoint.weightBytes,
      deviceBytes: allocatedBytes,
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
    if (this.#closing) {
      return Promise.reject(new DaybreakError("engine.closed", "the engine was closed; open it anew"));
    }
    const result = this.#queue.then(() => this.#generate(request));
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** Waits for the requests that were made, then frees the device. Every call resolves when that is done. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
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
    const defaults = requestDefaults(this.#checkpoint.config);
    // Everything that can be refused is refused before the first reference is resized.
    const given = checkReferences(request.references);
    const first = given[0] && preparedSize(given[0].width, given[0].height, defaults.tokenPixels);
    const resolved = resolveRequest(request, defaults, first);
    // A prompt that does not fit is found out before anything is built for it.
    this.#checkpoint.tokenizer.encode(resolved.prompt);
    if (resolved.isGuided) this.#checkpoint.tokenizer.encode(resolved.negativePrompt);
    const references = given.map((image) => prepareReference(image, defaults.tokenPixels));
    const { width, height, isGuided } = resolved;
    const sizes = references.map((reference) => ({ width: reference.width, height: reference.height }));
    const shape = { width, height, references: sizes, isGuided };
    const plan = await this.#plan(shape, request.trace && (request.trace.detail ? "detail" : "stages"));
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

  /** The plan of this size: a kept one or a new one. Plans that trace are not kept; whoever asked closes them. */
  async #plan(shape: PictureShape, trace: "stages" | "detail" | undefined): Promise<PicturePlan> {
    const key = JSON.stringify(shape);
    const known = trace ? undefined : this.#plans.get(key);
    if (known) {
      this.#plans.delete(key);
      this.#plans.set(key, known); // the last to be given up
      return known;
    }
    this.#makeRoom();
    const plan = await buildPicturePlan(this.#device, this.#checkpoint, this.#promptEncoder.embeds, shape, {
      operands: this.#operands,
      trace,
      memoryBudgetBytes: this.#memoryBudgetBytes,
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

function checkReferences(references: RgbImage[] = []): RgbImage[] {
  if (!Array.isArray(references)) {
    throw new DaybreakError("reference.not_an_image", `got references of type ${typeof references}, expected an array`);
  }
  for (const image of references) checkReference(image);
  return references;
}

function checkPrecision(precision: Precision): void {
  if (["auto", "f32", "f16"].includes(precision)) return;
  throw new DaybreakError("request.option_invalid", `got precision ${precision}, expected auto, f32 or f16`);
}

function chooseOperands(device: Device, precision: Precision): "f32" | "f16" {
  if (precision !== "auto") return precision;
  // Packing pays where memory bandwidth is short; a CPU has enough of it and no instructions to unpack with.
  return device.features.has("shader-f16") && !device.isSoftware ? "f16" : "f32";
}
