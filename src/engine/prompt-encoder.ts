// From a prompt to its embeddings on the device: tokens, the recorded text encoder, and the embeddings of recent
// prompts, so that a prompt that did not change is not encoded again.

import type { Checkpoint } from "./checkpoint.js";
import { BufferPlan, type CommandList, Recorder } from "./gpu/commands.js";
import type { Device } from "./gpu/device.js";
import type { Readback } from "./gpu/readback.js";
import { copyTensor, createTensor, destroyTensor, type Tensor, writeTensor } from "./gpu/tensor.js";
import { ropeTable } from "./models/qwen3/rope.js";
import { recordTextEncoder } from "./models/qwen3/text-encoder.js";
import { health, healthWords, judgeHealth } from "./ops/health.js";
import { maxPromptTokens } from "./request.js";

/** Prompts whose embeddings are kept: an edit and its negative, now and before. */
const rememberedPrompts = 4;

/** Receives what was computed, by the names of reference traces. */
export type TapTensors = Map<string, Tensor>;

type Recorded = { plan: BufferPlan; list: CommandList; taps: TapTensors };

/** Encodes prompts; owns the text encoder's activations. */
export class PromptEncoder {
  /** [T, 3·hidden]: the embeddings of the prompt that {@link encode} was last called with. */
  readonly embeds: Tensor;

  readonly #device: Device;
  readonly #readback: Readback;
  readonly #checkpoint: Checkpoint;
  readonly #operands: "f32" | "f16";
  readonly #hidden: Tensor;
  readonly #length: Tensor;
  readonly #rope: { cos: Tensor; sin: Tensor };
  readonly #health: Tensor;
  readonly #remembered = new Map<string, Tensor>();
  #recorded: Recorded | undefined;

  constructor(device: Device, readback: Readback, checkpoint: Checkpoint, operands: "f32" | "f16") {
    const { hiddenSize, headDim, ropeTheta } = checkpoint.config.textEncoder;
    this.#device = device;
    this.#readback = readback;
    this.#checkpoint = checkpoint;
    this.#operands = operands;
    this.#hidden = createTensor(device, "text residual", maxPromptTokens, hiddenSize);
    this.#length = createTensor(device, "prompt length", 1, 1, "u32");
    this.embeds = createTensor(device, "prompt embeds", maxPromptTokens, 3 * hiddenSize);
    this.#health = createTensor(device, "prompt health", 1, healthWords, "u32");
    const positions = Array.from({ length: maxPromptTokens }, (_, i) => i);
    const { cos, sin } = ropeTable(positions, headDim, ropeTheta);
    this.#rope = {
      cos: createTensor(device, "text rope cos", maxPromptTokens, headDim / 2),
      sin: createTensor(device, "text rope sin", maxPromptTokens, headDim / 2),
    };
    writeTensor(device, this.#rope.cos, cos);
    writeTensor(device, this.#rope.sin, sin);
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
    const recorded = onTaps ? await this.#record(true) : (this.#recorded ?? (await this.#record(false)));
    if (!onTaps) this.#recorded = recorded;
    try {
      recorded.list.submit();
      const words = await this.#readback.bytes(this.#health.storage.buffer as GPUBuffer, 0, 4 * healthWords);
      judgeHealth(new Uint32Array(words.buffer), "the text encoder");
      await onTaps?.(recorded.taps);
    } finally {
      if (onTaps) this.#closeRecorded(recorded);
    }
    this.#remember(prompt);
  }

  close(): void {
    if (this.#recorded) this.#closeRecorded(this.#recorded);
    const own = [this.#hidden, this.#length, this.embeds, this.#health, this.#rope.cos, this.#rope.sin];
    for (const tensor of [...own, ...this.#remembered.values()]) destroyTensor(this.#device, tensor);
    this.#remembered.clear();
  }

  async #record(withTaps: boolean): Promise<Recorded> {
    const device = this.#device;
    const { config, textEncoder } = this.#checkpoint;
    const recorder = new Recorder(device);
    const taps: TapTensors = new Map();
    const inputs = { hidden: this.#hidden, length: this.#length, rope: this.#rope, embeds: this.embeds };
    const tap = withTaps ? tapInto(recorder, taps) : undefined;
    recordTextEncoder(recorder, config.textEncoder, textEncoder, inputs, { operands: this.#operands, tap });
    health(recorder, this.embeds, this.#health, 0, "prompt health");
    const plan = new BufferPlan();
    const list = recorder.finish("text encoder", plan);
    plan.realize(device);
    await list.prepare();
    return { plan, list, taps };
  }

  #remember(prompt: string): void {
    const device = this.#device;
    let kept = this.#remembered.get(prompt);
    this.#remembered.delete(prompt);
    if (!kept && this.#remembered.size >= rememberedPrompts) {
      const [oldest, tensor] = this.#remembered.entries().next().value as [string, Tensor];
      this.#remembered.delete(oldest);
      kept = tensor;
    }
    kept ??= createTensor(device, "remembered embeds", this.embeds.rows, this.embeds.cols);
    copyTensor(device, this.embeds, kept);
    this.#remembered.set(prompt, kept);
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
