// From a prompt's tokens to its embeddings on the device: rows of the embedding table, the list that encodes them, and the
// embeddings of recent prompts, so that a prompt that did not change is not encoded again. The tensors outlive plans; the
// list belongs to a plan, because it shares the plan's scratch.

import type { Owner, Run, StageRecorder } from "../../family.js";
import type { CommandList } from "../../gpu/command-list.js";
import { type Tensor, writeTensor } from "../../gpu/tensor.js";
import { health, healthWords } from "../../ops/health.js";
import { RecentPrompts } from "../../recent-prompts.js";
import type { TokenizedPrompt } from "../../request.js";
import { judgeSlots, type TapTensors, tapInto } from "../../stages.js";
import type { WeightSet } from "../../weights/upload.js";
import { promptHiddenStates, type TextEncoderConfig } from "./config.js";
import { ropeTable } from "./rope.js";
import { recordTextEncoder } from "./text-encoder.js";

/** Encodes prompts of up to T tokens; {@link record} adds it to a plan. */
export type PromptEncoder = {
  /** [T, 3·hidden]: the embeddings of the prompt that was encoded last. */
  embeds: Tensor;
  record(recorder: StageRecorder, weights: WeightSet): RecordedEncoder;
};

/** The encoder in one plan. */
export type RecordedEncoder = {
  list: CommandList;
  /** What a detailed trace keeps of it. */
  taps: TapTensors;
  /**
   * Puts a prompt's embeddings into {@link PromptEncoder.embeds}: at once if they are remembered, unless it `isFresh`.
   * Errors: `request.cancelled`, `numerics.*`, `device.*`, those of the checkpoint's files.
   */
  encode(prompt: TokenizedPrompt, run: Run, options?: { isFresh?: boolean }): Promise<void>;
};

/** Describes the encoder's tensors, for prompts of `tokens` tokens with their padding. */
export function promptEncoder(owner: Owner, config: TextEncoderConfig, tokens: number): PromptEncoder {
  const { hiddenSize, headDim, ropeTheta } = config;
  const inputs = {
    hidden: owner.own("text residual", tokens, hiddenSize),
    length: owner.own("prompt length", 1, 1, "u32"),
    rope: {
      cos: owner.own("text rope cos", tokens, headDim / 2),
      sin: owner.own("text rope sin", tokens, headDim / 2),
    },
    embeds: owner.own("prompt embeds", tokens, promptHiddenStates.length * hiddenSize),
  };
  const healthResult = owner.own("prompt health", 1, healthWords, "u32");
  const recent = new RecentPrompts(owner, inputs.embeds);
  owner.constant((device) => {
    const positions = Array.from({ length: tokens }, (_, i) => i);
    const { cos, sin } = ropeTable(positions, headDim, ropeTheta);
    writeTensor(device, inputs.rope.cos, cos);
    writeTensor(device, inputs.rope.sin, sin);
  });

  const record = (recorder: StageRecorder, weights: WeightSet): RecordedEncoder => {
    const taps: TapTensors = new Map();
    const list = recorder.list("prompt", "prompt", (commands) => {
      const tap = recorder.trace === "detail" ? tapInto(commands, taps) : undefined;
      recordTextEncoder(commands, config, weights, inputs, { operands: recorder.operands, tap });
      health(commands, inputs.embeds, healthResult, 0, "prompt health");
    });
    const encode: RecordedEncoder["encode"] = async ({ text, ids, length }, run, { isFresh = false } = {}) => {
      const { device, readback, signal } = run;
      if (!isFresh && recent.recall(text, inputs.embeds, run)) return;
      writeTensor(device, inputs.hidden, await weights.rows("embed_tokens", ids, signal));
      device.gpu.queue.writeBuffer(inputs.length.storage.buffer as GPUBuffer, 0, Uint32Array.of(length));
      await list.submit(signal);
      await judgeSlots([{ tensor: healthResult, row: 0, what: "the text encoder" }], readback);
      recent.remember(text, inputs.embeds, run);
    };
    return { list, taps, encode };
  };
  return { embeds: inputs.embeds, record };
}
