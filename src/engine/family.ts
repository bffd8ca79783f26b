// All that the engine knows of a model. A family of models says which checkpoints are its own and opens one; a model says
// what it takes, of which weights it consists, and how its stages are recorded; stages are what a request runs. Types
// only: two families that need the same thing share a function.

import type { CommandList } from "./gpu/command-list.js";
import type { Device } from "./gpu/device.js";
import type { DeviceFacts } from "./gpu/facts.js";
import type { Readback } from "./gpu/readback.js";
import type { Recorder } from "./gpu/recorder.js";
import type { Dtype, Tensor } from "./gpu/tensor.js";
import type { RgbImage } from "./images.js";
import type { PictureShape, RequestBounds, TokenizedPrompt, Tokenizer, TraceSink } from "./request.js";
import type { SlotTable, UsedPer } from "./weights/slots.js";
import type { CheckpointSource } from "./weights/source.js";
import type { WeightSet } from "./weights/upload.js";

export type Family = {
  /** For people. */
  name: string;
  /** `_class_name`s of model_index.json that are its own; "Name*" stands for all that begin with Name. */
  classes: readonly string[];
  /** The classes that it implements, for messages. */
  implements: string;
  /**
   * Reads and checks a checkpoint's configs and its tokenizer; no weight.
   * @param supported what runs here, for messages
   * Errors: `model.*`, those of the source.
   */
  open(source: CheckpointSource, supported: string): Promise<Omit<Model, "family">>;
};

/** A checkpoint as far as it is known without its weights. */
export type Model = {
  /** The family's name. */
  family: string;
  bounds: RequestBounds;
  tokenizer: Tokenizer;
  /** One for each component, in the order in which they are loaded. */
  tables: readonly SlotTable[];
  /** The sizes by which checkpoints of the family differ, by component, for people. */
  sizes: Readonly<Record<string, Readonly<Record<string, number | readonly number[]>>>>;
  /**
   * Describes the tensors that outlive a plan, such as the embeddings of recent prompts, and returns what records plans
   * with them.
   */
  recording(owner: Owner): RecordStages;
};

/** Weights by component. */
export type WeightsByName = Readonly<Record<string, WeightSet>>;

/**
 * Records what pictures of a shape take. Only facts of a device are needed, so that a plan can be made where there is none;
 * weights may be planned ones, which have a size and nothing in it.
 */
export type RecordStages = (recorder: StageRecorder, weights: WeightsByName, shape: PictureShape) => Stages;

/** Owns tensors that are described first, and made on a device later. */
export type Owner = {
  own(label: string, rows: number, cols: number, dtype?: Dtype): Tensor;
  /** Writes values that never change as soon as the tensors are made. */
  constant(write: (device: Device) => void): void;
};

/** How much memory decoding gets. Pictures are the same. */
export type Decoding = {
  /** A band of normalised pixels is kept at most this large, bytes: convolutions take their input band by band. */
  bandBytes: number;
  /**
   * Makes an enlarged image anew for each of its uses, band by band, instead of keeping it: a convolution more, and two
   * fifths less memory for a decoder.
   */
  remakes: boolean;
};

/** Records the lists of one plan; what it owns lives as long as the plan. */
export type StageRecorder = Owner & {
  facts: DeviceFacts;
  /** "f16": operands may be packed into 16 bits. */
  operands: "f32" | "f16";
  decoding: Decoding;
  /** `stages` keeps what the stages compute, `detail` the inner tensors of the first step as well. */
  trace: "stages" | "detail" | undefined;
  /** Records one list; all lists of a plan share their scratch. `per` says how often it runs. */
  list(label: string, per: UsedPer, body: (recorder: Recorder) => void): CommandList;
};

/** What stages run on. */
export type Run = { device: Device; readback: Readback; signal?: AbortSignal };

/** A row of a health tensor, see ops/health.ts, to be judged under this name. */
export type HealthSlot = { tensor: Tensor; row: number; what: string };

/** What a request runs, in this order. Each may be traced when it has run. */
export type Stages = {
  prompts: { positive: PromptStage; negative: PromptStage | undefined };
  /** References, first frames: one for each of the shape's. */
  conditions: readonly ConditionStage[];
  /** The starting noise, [C, h, w] or [C, f, h, w]. */
  noise: { shape: readonly number[]; write(values: Float32Array, run: Run): void };
  /** The schedule of so many steps, from noise to a picture. */
  steps(count: number, guidance: number): readonly Step[];
  decode: DecodeStage;
  /** Every list under the name of its stage, in the order of a request, for timing. */
  lists: readonly (readonly [stage: string, list: CommandList])[];
};

export type PromptStage = {
  /**
   * Conditions the steps on a prompt. What is known of it already is not computed again, unless it `isFresh`.
   * Errors: `request.cancelled`, `numerics.*`, `device.*`, those of the checkpoint's files.
   */
  encode(prompt: TokenizedPrompt, run: Run, options?: { isFresh?: boolean }): Promise<void>;
  trace?(sink: TraceSink, prompt: TokenizedPrompt, run: Run): Promise<void>;
};

export type ConditionStage = {
  /** Conditions the steps on an image; what it holds already is not computed again. Errors: as a prompt's. */
  encode(image: RgbImage, run: Run): Promise<void>;
  trace?(sink: TraceSink, run: Run): Promise<void>;
};

/** One denoising step from `sigma` to `next`, 1 being noise and 0 a picture. */
export type Step = {
  sigma: number;
  next: number;
  run(run: Run): Promise<void>;
  /** What the step gave. */
  health: readonly HealthSlot[];
  trace?(sink: TraceSink, run: Run): Promise<void>;
};

export type DecodeStage = {
  /** Frames of a result; 1: it is a picture. */
  frames: number;
  /**
   * A frame of the latents. At a `sigma` above 0 it is what they are expected to become if the velocity stays as it was in
   * the last step; neither latents nor velocity change.
   */
  read(frame: number, sigma: number, run: Run): Promise<RgbImage>;
  /** What the last frame was read from. */
  health: readonly HealthSlot[];
  trace?(sink: TraceSink, run: Run): Promise<void>;
};
