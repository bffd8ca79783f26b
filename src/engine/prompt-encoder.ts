// From a prompt to its embeddings on the device: tokens, the recorded text encoder, and the embeddings of recent
// prompts, so that a prompt that did not change is not encoded again. All of it is made when the engine opens: a
// prompt allocates nothing, unless its inner tensors are asked for.

import { type Checkpoint, checkBudget } from "./checkpoint.js";
import { BufferPlan, type CommandList, Recorder } from "./gpu/commands.js";
import type { Device } from "./gpu/device.js";
import type { Readback } from "./gpu/readback.js";
import { copyTensor, destroyTensor, ownTensor, realizeTensor, type Tensor, writeTensor } from "./gpu/tensor.js";
import { ropeTable } from "./models/qwen3/rope.js";
import { recordTextEncoder } from "./models/qwen3/text-encoder.js";
import { health, healthWords, judgeHealth } from "./ops/health.js";
import { maxPromptTokens } from "./request.js";

/** Prompts whose embeddings are kept: an edit and its negative, now and before. */
const rememberedPrompts = 4;

/** Receives what was computed, by the names of reference traces. */
export type TapTensors = Map<string, Tensor>;

type Recorded = { plan: BufferPlan; list: CommandList; taps: TapTensors };

export type PromptEncoderOptions = { operands: "f32" | "f16"; memoryBudgetBytes?: number };

/** Encodes prompts; owns the text encoder's activations. */
export class PromptEncoder {
  /** [T, 3·hidden]: the embeddings of the prompt that {@link encode} was last called with. */
  readonly embeds: Tensor;

  readonly #device: Device;
  readonly #readback: Readback;
  readonly #checkpoint: Checkpoint;
  readonly #options: PromptEncoderOptions;
  readonly #hidden: Tensor;
  readonly #length: Tensor;
  readonly #rope: { cos: Tensor; sin: Tensor };
  readonly #health: Tensor;
  readonly #recorded: Recorded;
  /** Places for embeddings that hold no prompt's yet. */
  readonly #free: Tensor[];
  readonly #remembered = new Map<string, Tensor>();

  private constructor(device: Device, readback: Readback, checkpoint: Checkpoint, options: PromptEncoderOptions) {
    const { hiddenSize, headDim } = checkpoint.config.textEncoder;
    this.#device = device;
    this.#readback = readback;
    this.#checkpoint = checkpoint;
    this.#options = options;
    this.#hidden = ownTensor("text residual", maxPromptTokens, hiddenSize);
    this.#length = ownTensor("prompt length", 1, 1, "u32");
    this.embeds = ownTensor("prompt embeds", maxPromptTokens, 3 * hiddenSize);
    this.#health = ownTensor("prompt health", 1, healthWords, "u32");
    this.#rope = {
      cos: ownTensor("text rope cos", maxPromptTokens, headDim / 2),
      sin: ownTensor("text rope sin", maxPromptTokens, headDim / 2),
    };
    this.#free = Array.from({ length: rememberedPrompts }, () =>
      ownTensor("remembered embeds", this.embeds.rows, this.embeds.cols),
    );
    this.#recorded = this.#record(false);
  }

  /**
   * Makes everything that prompts need on the device. Errors: `device.memory_budget_exceeded`,
   * `device.limit_exceeded`, `device.out_of_memory`, `device.error`, `device.lost`; the caller closes the device.
   */
  static async open(
    device: Device,
    readback: Readback,
    checkpoint: Checkpoint,
    options: PromptEncoderOptions,
  ): Promise<PromptEncoder> {
    const encoder = new PromptEncoder(device, readback, checkpoint, options);
    await encoder.#realize(encoder.#recorded, encoder.#tensors());
    const { headDim, ropeTheta } = checkpoint.config.textEncoder;
    const positions = Array.from({ length: maxPromptTokens }, (_, i) => i);
    const { cos, sin } = ropeTable(positions, headDim, ropeTheta);
    writeTensor(device, encoder.#rope.cos, cos);
    writeTensor(device, encoder.#rope.sin, sin);
    return encoder;
  }

  /**
   * Puts the prompt's embeddings into {@link embeds}; at once if they are remembered. `onTaps` asks for the inner
   * tensors, which are valid until it returns.
   * Errors: `request.prompt_*`, `numerics.*`, `device.*`.
   */
  async encode(prompt: string, onTaps?: (taps: TapTensors) => Promise<void>): Promise<void> {
    const device = this.#device;
    const known = this.#remembered.get(prompt);
    if (known && !onTaps) {
      copyTensor(device, known, this.embeds);
      this.#remembered.delete(prompt);
      this.#remembered.set(prompt, known); // the last to be forgotten
      return;
    }
    const { ids, length } = this.#checkpoint.tokenizer.encode(prompt);
    writeTensor(device, this.#hidden, await this.#checkpoint.embed(ids));
    device.gpu.queue.writeBuffer(this.#length.storage.buffer as GPUBuffer, 0, Uint32Array.of(length));
    const recorded = onTaps ? this.#record(true) : this.#recorded;
    try {
      if (onTaps) await this.#realize(recorded, []);
      recorded.list.submit();
      const words = await this.#readback.bytes(this.#health.storage.buffer as GPUBuffer, 0, 4 * healthWords);
      judgeHealth(new Uint32Array(words.buffer), "the text encoder");
      await onTaps?.(recorded.taps);
    } finally {
      if (onTaps) this.#closeRecorded(recorded);
    }
    this.#remember(prompt);
  }

  /** The recorded text encoder, for measuring it. */
  get list(): CommandList {
    return this.#recorded.list;
  }

  close(): void {
    this.#closeRecorded(this.#recorded);
    for (const tensor of this.#tensors()) destroyTensor(this.#device, tensor);
    this.#free.length = 0;
    this.#remembered.clear();
  }

  /** Everything that lives as long as the encoder, but for the recorded list's scratch. */
  #tensors(): Tensor[] {
    const { cos, sin } = this.#rope;
    const own = [this.#hidden, this.#length, this.embeds, this.#health, cos, sin];
    return [...own, ...this.#free, ...this.#remembered.values()];
  }

  #record(withTaps: boolean): Recorded {
    const { config, textEncoder } = this.#checkpoint;
    const { operands } = this.#options;
    const recorder = new Recorder(this.#device);
    const taps: TapTensors = new Map();
    const inputs = { hidden: this.#hidden, length: this.#length, rope: this.#rope, embeds: this.embeds };
    const tap = withTaps ? tapInto(recorder, taps) : undefined;
    recordTextEncoder(recorder, config.textEncoder, textEncoder, inputs, { operands, tap });
    health(recorder, this.embeds, this.#health, 0, "prompt health");
    const plan = new BufferPlan();
    return { plan, list: recorder.finish("text encoder", plan), taps };
  }

  /** Makes the buffers of a recorded list and of further tensors, within the budget. */
  async #realize({ plan, list }: Recorded, tensors: Tensor[]): Promise<void> {
    const device = this.#device;
    const own = tensors.reduce((sum, { storage }) => sum + storage.byteLength, 0);
    const byteLength = plan.byteLength + list.byteLength + own;
    checkBudget("weights and text encoder", device.allocatedBytes + byteLength, this.#options.memoryBudgetBytes);
    await device.allocating(`the ${byteLength} bytes that the text encoder takes`, () => {
      for (const tensor of tensors) realizeTensor(device, tensor);
      plan.realize(device);
    });
    await list.prepare();
  }

  #remember(prompt: string): void {
    const place = this.#remembered.get(prompt) ?? this.#free.pop() ?? this.#forgetOldest();
    copyTensor(this.#device, this.embeds, place);
    this.#remembered.delete(prompt);
    this.#remembered.set(prompt, place);
  }

  /** The place of the prompt that was not used for longest. */
  #forgetOldest(): Tensor {
    const [prompt, place] = this.#remembered.entries().next().value as [string, Tensor];
    this.#remembered.delete(prompt);
    return place;
  }

  #closeRecorded({ plan, list }: Recorded): void {
    list.close();
    plan.close(this.#device);
  }
}

/** A tap that keeps a copy of every tensor it is shown: residual streams change in place. */
export function tapInto(recorder: Recorder, taps: TapTensors): (name: string, tensor: Tensor) => void {
  return (name, tensor) => {
    const copy = recorder.scratch(name, tensor.rows, tensor.cols, tensor.dtype);
    recorder.copy(tensor, copy);
    recorder.keep(copy);
    taps.set(name, copy);
  };
}
