// From a prompt to its embeddings on the device: tokens, the list that encodes them, and the embeddings of recent
// prompts, so that a prompt that did not change is not encoded again. All tensors are made when the engine opens; the list
// belongs to the plan of a picture size, because it shares the plan's scratch.

import type { Checkpoint } from "./checkpoint.js";
import type { CommandList } from "./gpu/command-list.js";
import type { Device } from "./gpu/device.js";
import type { Readback } from "./gpu/readback.js";
import type { Recorder } from "./gpu/recorder.js";
import { copyTensors, destroyTensor, ownTensor, realizeTensor, type Tensor, writeTensor } from "./gpu/tensor.js";
import type { CheckpointConfig } from "./models/flux2/config.js";
import { ropeTable } from "./models/qwen3/rope.js";
import { type ForwardOptions, recordTextEncoder } from "./models/qwen3/text-encoder.js";
import { health, healthWords, judgeHealth } from "./ops/health.js";
import { maxPromptTokens } from "./request.js";

/** Prompts whose embeddings are kept: an edit and its negative, now and before. */
const rememberedPrompts = 4;

/** Receives what was computed, by the names of reference traces. */
export type TapTensors = Map<string, Tensor>;

/** What a prompt's encoding reads and writes. */
export type PromptTensors = {
  /** [T, hidden]: the tokens' embeddings; becomes the residual stream. */
  hidden: Tensor;
  /** [1, 1] u32: the number of real tokens. */
  length: Tensor;
  rope: { cos: Tensor; sin: Tensor };
  /** [T, 3·hidden]: the prompt's embeddings. */
  embeds: Tensor;
  health: Tensor;
};

/** Records the encoding of whatever prompt's tokens the tensors hold. */
export function recordPrompt(
  recorder: Recorder,
  { config, textEncoder }: Checkpoint,
  prompt: PromptTensors,
  options: ForwardOptions,
): void {
  recordTextEncoder(recorder, config.textEncoder, textEncoder, prompt, options);
  health(recorder, prompt.embeds, prompt.health, 0, "prompt health");
}

/** What prompts take on a device, before any of it is there. */
export function promptTensors({ textEncoder }: CheckpointConfig): PromptTensors & { remembered: Tensor[] } {
  const { hiddenSize, headDim } = textEncoder;
  const embeds = (label: string) => ownTensor(label, maxPromptTokens, 3 * hiddenSize);
  return {
    hidden: ownTensor("text residual", maxPromptTokens, hiddenSize),
    length: ownTensor("prompt length", 1, 1, "u32"),
    rope: {
      cos: ownTensor("text rope cos", maxPromptTokens, headDim / 2),
      sin: ownTensor("text rope sin", maxPromptTokens, headDim / 2),
    },
    embeds: embeds("prompt embeds"),
    health: ownTensor("prompt health", 1, healthWords, "u32"),
    remembered: Array.from({ length: rememberedPrompts }, () => embeds("remembered embeds")),
  };
}

export type EncodeOptions = {
  /** Encodes also what is remembered. */
  isFresh?: boolean;
  signal?: AbortSignal;
};

/** Encodes prompts and remembers some. */
export class PromptEncoder {
  /** {@link PromptTensors.embeds} are those of the prompt that {@link encode} was last called with. */
  readonly tensors: PromptTensors;

  readonly #device: Device;
  readonly #readback: Readback;
  readonly #checkpoint: Checkpoint;
  /** Places for embeddings that hold no prompt's yet. */
  readonly #free: Tensor[];
  readonly #remembered = new Map<string, Tensor>();

  private constructor(device: Device, readback: Readback, checkpoint: Checkpoint) {
    this.#device = device;
    this.#readback = readback;
    this.#checkpoint = checkpoint;
    const { remembered, ...tensors } = promptTensors(checkpoint.config);
    this.tensors = tensors;
    this.#free = remembered;
  }

  /**
   * Makes the tensors on the device. Errors: `device.limit_exceeded`, `device.out_of_memory`,
   * `device.error`, `device.lost`; the caller closes the device.
   */
  static async open(device: Device, readback: Readback, checkpoint: Checkpoint): Promise<PromptEncoder> {
    const encoder = new PromptEncoder(device, readback, checkpoint);
    const tensors = encoder.#all();
    const bytes = tensors.reduce((sum, { storage }) => sum + storage.byteLength, 0);
    await device.allocating(`the ${bytes} bytes that prompts take`, () => {
      for (const tensor of tensors) realizeTensor(device, tensor);
    });
    const { headDim, ropeTheta } = checkpoint.config.textEncoder;
    const positions = Array.from({ length: maxPromptTokens }, (_, i) => i);
    const { cos, sin } = ropeTable(positions, headDim, ropeTheta);
    writeTensor(device, encoder.tensors.rope.cos, cos);
    writeTensor(device, encoder.tensors.rope.sin, sin);
    return encoder;
  }

  /**
   * Puts the prompt's embeddings into the tensors: at once if they are remembered and `isFresh` is false, else by running
   * `list`, which {@link recordPrompt} recorded.
   * Errors: `request.prompt_*`, `request.cancelled`, `numerics.*`, `device.*`, those of the checkpoint's files.
   */
  async encode(prompt: string, list: CommandList, { isFresh = false, signal }: EncodeOptions = {}): Promise<void> {
    const { hidden, length, embeds, health: healthResult } = this.tensors;
    const device = this.#device;
    const known = this.#remembered.get(prompt);
    if (known && !isFresh) {
      copyTensors(device, [[known, embeds]]);
      this.#remembered.delete(prompt);
      this.#remembered.set(prompt, known); // the last to be forgotten
      return;
    }
    const { ids, length: realTokens } = this.#checkpoint.tokenizer.encode(prompt);
    writeTensor(device, hidden, await this.#checkpoint.embed(ids, signal));
    device.gpu.queue.writeBuffer(length.storage.buffer as GPUBuffer, 0, Uint32Array.of(realTokens));
    await list.submit(signal);
    const words = await this.#readback.bytes(healthResult.storage.buffer as GPUBuffer, 0, 4 * healthWords);
    judgeHealth(new Uint32Array(words.buffer), "the text encoder");
    this.#remember(prompt);
  }

  close(): void {
    for (const tensor of this.#all()) destroyTensor(this.#device, tensor);
    this.#free.length = 0;
    this.#remembered.clear();
  }

  #all(): Tensor[] {
    const { rope, ...own } = this.tensors;
    return [...Object.values(own), rope.cos, rope.sin, ...this.#free, ...this.#remembered.values()];
  }

  #remember(prompt: string): void {
    const place = this.#remembered.get(prompt) ?? this.#free.pop() ?? this.#forgetOldest();
    copyTensors(this.#device, [[this.tensors.embeds, place]]);
    this.#remembered.delete(prompt);
    this.#remembered.set(prompt, place);
  }

  /** The place of the prompt that was not used for longest. */
  #forgetOldest(): Tensor {
    const [prompt, place] = this.#remembered.entries().next().value as [string, Tensor];
    this.#remembered.delete(prompt);
    return place;
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
