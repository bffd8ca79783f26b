// The engine: open → generate → close. Owns the device, the checkpoint on it and the plans of recent picture sizes.
// Requests run one after the other in the order of their calls; a failed request leaves the engine usable, a failed
// device does not.

import { DaybreakError } from "../errors.js";
import { type Checkpoint, loadCheckpoint } from "./checkpoint.js";
import { type Device, type DeviceLimits, openDevice } from "./gpu/device.js";
import { Readback } from "./gpu/readback.js";
import { patchSize } from "./models/flux2/config.js";
import { prepareReference } from "./models/flux2/reference-image.js";
import { buildPicturePlan, type PicturePlan, type PictureShape } from "./picture-plan.js";
import { generateImages, throwIfAborted } from "./pipeline.js";
import { PromptEncoder } from "./prompt-encoder.js";
import {
  type GenerateRequest,
  type GenerateResult,
  type Precision,
  type ProgressEvent,
  type RequestDefaults,
  resolveRequest,
} from "./request.js";
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
  #closed = false;

  private constructor(device: Device, checkpoint: Checkpoint, operands: "f32" | "f16", memoryBudgetBytes?: number) {
    this.#device = device;
    this.#readback = new Readback(device);
    this.#checkpoint = checkpoint;
    this.#operands = operands;
    this.#memoryBudgetBytes = memoryBudgetBytes;
    this.#promptEncoder = new PromptEncoder(device, this.#readback, checkpoint, operands);
  }

  /**
   * Opens a device and loads a checkpoint onto it.
   * Errors: `device.*`, `model.*`, `safetensors.*`, `weights.*`, `request.cancelled`; nothing stays open after one.
   */
  static async open(options: EngineOptions): Promise<Engine> {
    const { precision = "auto", memoryBudgetBytes } = options;
    const device = await openDevice({ gpu: options.gpu, limits: options.limits });
    try {
      const operands = chooseOperands(device, precision);
      const checkpoint = await loadCheckpoint(device, options.source, options);
      return new Engine(device, checkpoint, operands, memoryBudgetBytes);
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

  /**
   * Generates the images of one request; several calls wait for each other.
   * Errors: `request.*`, `reference.*`, `numerics.*`, `device.*`, `engine.closed`.
   */
  generate(request: GenerateRequest): Promise<GenerateResult> {
    const result = this.#queue.then(() => this.#generate(request));
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** Waits for the requests that were made, then frees the device. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#queue;
    for (const plan of this.#plans.values()) plan.close();
    this.#promptEncoder.close();
    this.#checkpoint.close();
    this.#readback.close();
    this.#device.close();
  }

  async #generate(request: GenerateRequest): Promise<GenerateResult> {
    if (this.#closed) throw new DaybreakError("engine.closed", "the engine was closed; open it anew");
    this.#device.check();
    throwIfAborted(request.signal);
    const defaults = this.#requestDefaults();
    const references = (request.references ?? []).map((image) => prepareReference(image, defaults.tokenPixels));
    const resolved = resolveRequest(request, defaults, references[0]);
    const shape: PictureShape = {
      width: resolved.width,
      height: resolved.height,
      references: references.map(({ width, height }) => ({ width, height })),
      isGuided: resolved.isGuided,
    };
    // A prompt that does not fit is found out before anything is built for it.
    this.#checkpoint.tokenizer.encode(resolved.prompt);
    if (resolved.isGuided) this.#checkpoint.tokenizer.encode(resolved.negativePrompt);
    const plan = await this.#plan(shape, request.trace && (request.trace.detail ? "detail" : "stages"));
    try {
      const pipeline = {
        device: this.#device,
        readback: this.#readback,
        checkpoint: this.#checkpoint,
        promptEncoder: this.#promptEncoder,
        plan,
      };
      return await generateImages(pipeline, resolved, references, request);
    } finally {
      if (request.trace) plan.close();
    }
  }

  /** The plan of this size: a kept one, or a new one in place of the one that was not used for longest. */
  async #plan(shape: PictureShape, trace: "stages" | "detail" | undefined): Promise<PicturePlan> {
    const build = () =>
      buildPicturePlan(this.#device, this.#checkpoint, this.#promptEncoder.embeds, shape, {
        operands: this.#operands,
        trace,
        memoryBudgetBytes: this.#memoryBudgetBytes,
      });
    if (trace) return build();
    const key = JSON.stringify(shape);
    const known = this.#plans.get(key);
    this.#plans.delete(key);
    const total = () => [...this.#plans.values()].reduce((sum, plan) => sum + plan.byteLength, 0);
    if (!known) {
      for (const [old, plan] of this.#plans) {
        if (this.#plans.size < maxPlans && total() < maxPlanBytes && this.#memoryBudgetBytes === undefined) break;
        plan.close();
        this.#plans.delete(old);
      }
    }
    const plan = known ?? (await build());
    this.#plans.set(key, plan); // the last to be given up
    return plan;
  }

  #requestDefaults(): RequestDefaults {
    const { modelIndex, transformer, vae } = this.#checkpoint.config;
    return {
      isDistilled: modelIndex.isDistilled,
      sampleSize: vae.sampleSize,
      latentChannels: transformer.inChannels,
      tokenPixels: patchSize * vae.scaleFactor,
    };
  }
}

function chooseOperands(device: Device, precision: Precision): "f32" | "f16" {
  if (!["auto", "f32", "f16"].includes(precision)) {
    throw new DaybreakError("request.option_invalid", `got precision ${precision}, expected auto, f32 or f16`);
  }
  if (precision !== "auto") return precision;
  // Packing pays where memory bandwidth is short; a CPU has enough of it and no instructions to unpack with.
  return device.features.has("shader-f16") && !device.isSoftware ? "f16" : "f32";
}
