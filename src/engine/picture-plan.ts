// Everything recorded for one picture size: the tensors that live through a picture, and the command lists of its
// stages. Built once per size, then replayed; between building and closing nothing is allocated on the device.
// Knows the order of no request: pipeline.ts runs the lists.

import { DaybreakError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import { BufferPlan } from "./gpu/buffer-plan.js";
import type { CommandList } from "./gpu/command-list.js";
import type { Device } from "./gpu/device.js";
import type { DeviceFacts } from "./gpu/facts.js";
import { Recorder } from "./gpu/recorder.js";
import { destroyTensor, ownTensor, realizeTensor, sliceRows, type Tensor, writeTensor } from "./gpu/tensor.js";
import { patchSize } from "./models/flux2/config.js";
import { type LatentGrid, latentGrid } from "./models/flux2/latents.js";
import { positionAxes, positionIds, ropeTable } from "./models/flux2/rope.js";
import {
  type Modulation,
  modulationTensors,
  recordContext,
  recordModulation,
  recordTransformer,
} from "./models/flux2/transformer.js";
import { recordDecoder, recordEncoder, type VaeOptions, type VaeTap } from "./models/flux2/vae.js";
import { eulerStep, guidance } from "./ops/elementwise.js";
import { health, healthWords } from "./ops/health.js";
import { rgb8 } from "./ops/pixels.js";
import type { Workload } from "./ops/variants.js";
import { type PromptTensors, recordPrompt, type TapTensors, tapInto } from "./prompt-encoder.js";
import { maxPromptTokens } from "./request.js";

export type PictureShape = {
  width: number;
  height: number;
  /** Sizes of the prepared references, in pixels. */
  references: { width: number; height: number }[];
  /** Whether a second pass with a negative prompt runs in every step. */
  isGuided: boolean;
};

/** Steps whose modulation is computed at once. */
export const modulatedSteps = 4;

export type PictureOptions = {
  operands: "f32" | "f16";
  /** How the VAE goes through a picture; recording takes the first of {@link decodings} by itself. */
  decoding?: Decoding;
  /** `stages` keeps what the stages compute, `detail` the inner tensors of the first step and the VAE as well. */
  trace?: "stages" | "detail";
  /** Is told of every workload, each time, and the list that it is part of, such as "denoise". */
  onWorkload?: (workload: Workload, list: string) => void;
};

/** How much memory the VAE gets; see {@link VaeOptions}. */
export type Decoding = Pick<VaeOptions, "bandBytes" | "remakes">;

/** The fastest first, the last needs the least. Pictures are the same. */
export const decodings: readonly [Decoding, Decoding, Decoding] = [
  { bandBytes: 256 * 2 ** 20, remakes: false },
  { bandBytes: 32 * 2 ** 20, remakes: true },
  { bandBytes: 2 * 2 ** 20, remakes: true },
];

/** A list whose result stays on the device, and what that is the result of: it need not be computed twice. */
type Remembered = { list: CommandList; holds: string | undefined };

/** One reference's part: its pixels [H·W, 3] in −1 … 1, and the list that encodes them into tokens. */
type ReferencePlan = Remembered & { picture: Tensor; tokens: Tensor; health: Tensor };

export type PicturePlan = {
  grid: LatentGrid;
  /** [N, C]: noise at first, denoised in place. */
  latents: Tensor;
  /** [1, 8] f32, written before each step and each decoding: by how much σ changes, guidance scale. */
  step: Tensor;
  /** [{@link modulatedSteps}, timestep channels], written before {@link modulate} runs. */
  sinusoids: Tensor;
  /** The modulation of that many steps at once, a row each; {@link modulationOf} takes a step's. */
  modulate: CommandList;
  modulation: { table: Modulation; current: Modulation };
  references: ReferencePlan[];
  /** Encodes the prompt encoder's tokens, and what it keeps of that if it traces. */
  prompt: { list: CommandList; taps: TapTensors };
  /** Projects the prompt encoder's embeddings for the positive and, if guided, the negative pass. */
  contexts: { positive: Remembered; negative: Remembered | undefined };
  denoise: CommandList;
  /**
   * Latents, moved by the step tensor's σ difference along the last step's velocity, to pixels. The difference 0 decodes
   * the latents, −σ of the latents a preview; neither latents nor velocity change.
   */
  decode: CommandList;
  /** Rows: see {@link healthSlots}. */
  health: Tensor;
  /** u32 words whose bytes are the picture's RGB. */
  pixels: Tensor;
  /** What a traced plan keeps of the steps and the VAE; channels-last images are [h·w, C] with their extents in `images`. */
  taps: TapTensors;
  images: Map<string, { height: number; width: number }>;
  byteLength: number;
  close(): void;
};

/** Rows of {@link PicturePlan.health}: a step's velocity, the latents after it, the decoder's output. */
export const healthSlots = { velocity: 0, latents: 1, picture: 2 } as const;

/**
 * Makes everything for one size, the prompt's encoding included. Without a decoding in the options it takes the first for
 * which the device has buffers and memory.
 * Errors: `device.limit_exceeded`, `device.out_of_memory`; nothing is left after one.
 */
export async function buildPicturePlan(
  device: Device,
  checkpoint: Checkpoint,
  prompt: PromptTensors,
  shape: PictureShape,
  options: PictureOptions,
): Promise<PicturePlan> {
  let failure: unknown;
  for (const decoding of options.decoding ? [options.decoding] : decodings) {
    try {
      return await recordPicture(device, checkpoint, prompt, shape, { ...options, decoding }).realize(device);
    } catch (error) {
      failure = error;
      if (device.failure || !isTooLarge(error)) break;
    }
  }
  throw failure;
}

/** Whether the device has no room for what was asked. */
function isTooLarge(error: unknown): boolean {
  return error instanceof DaybreakError && /^device\.(limit_exceeded|out_of_memory)$/.test(error.code);
}

/** One size, recorded and placed. What it takes is known, and nothing of it is on the device. */
export type RecordedPicture = {
  byteLength: number;
  /** Of the buffers that it takes. */
  largestBufferBytes: number;
  /** Makes the buffers and compiles. Errors: as {@link buildPicturePlan}. */
  realize(device: Device): Promise<PicturePlan>;
};

/** Records everything for one size; all lists share their scratch. */
export function recordPicture(
  facts: DeviceFacts,
  checkpoint: Checkpoint,
  prompt: PromptTensors,
  shape: PictureShape,
  options: PictureOptions,
): RecordedPicture {
  const owned: Tensor[] = [];
  const own = (label: string, rows: number, cols: number, dtype: "f32" | "u32" = "f32") => {
    const tensor = ownTensor(label, rows, cols, dtype);
    owned.push(tensor);
    return tensor;
  };
  const lists: CommandList[] = [];
  const places = new BufferPlan();
  const constants: Recording["constants"] = [];
  const parts = recordStages({ facts, checkpoint, prompt, shape, options, places, own, constants, lists });
  const sizes = [...places.sizes, ...[...owned.map(({ storage }) => storage), ...lists].map((part) => part.byteLength)];
  const byteLength = sizes.reduce((sum, bytes) => sum + bytes, 0);
  const largestBufferBytes = sizes.reduce((most, bytes) => Math.max(most, bytes), 0);
  const realize = async (device: Device) => {
    const close = () => {
      for (const list of lists) list.close();
      places.close(device);
      for (const tensor of owned) destroyTensor(device, tensor);
    };
    try {
      await device.allocating(`the ${byteLength} bytes that a picture of this size takes`, () => {
        places.realize(device);
        for (const tensor of owned) realizeTensor(device, tensor);
        for (const list of lists) list.allocate(device);
      });
      for (const write of constants) write(device);
      for (const list of lists) await list.prepare(device);
      return { ...parts, byteLength, close };
    } catch (error) {
      close();
      throw error;
    }
  };
  return { byteLength, largestBufferBytes, realize };
}

type Recording = {
  facts: DeviceFacts;
  checkpoint: Checkpoint;
  prompt: PromptTensors;
  shape: PictureShape;
  options: PictureOptions;
  places: BufferPlan;
  /** A tensor that lives as long as the plan. */
  own: (label: string, rows: number, cols: number, dtype?: "f32" | "u32") => Tensor;
  /** Each writes what never changes into tensors of the plan. */
  constants: ((device: Device) => void)[];
  lists: CommandList[];
};

function recordStages(recording: Recording): Omit<PicturePlan, "byteLength" | "close"> {
  const { checkpoint, prompt, shape, options, own } = recording;
  const { transformer: config, vae } = checkpoint.config;
  const multiple = patchSize * vae.scaleFactor;
  const grid = latentGrid(shape.width, shape.height, multiple);
  const grids = shape.references.map(({ width, height }) => latentGrid(width, height, multiple));
  const referenceTokens = grids.reduce((sum, { h, w }) => sum + h * w, 0);

  const taps: TapTensors = new Map();
  const images: PicturePlan["images"] = new Map();
  const latents = own("latents", grid.h * grid.w, config.inChannels);
  const referenceLatents = referenceTokens > 0 ? own("references", referenceTokens, config.inChannels) : undefined;
  const step = own("step", 1, 8);
  const sinusoids = own("sinusoids", modulatedSteps, config.timestepGuidanceChannels);
  const healthResult = own("health", Object.keys(healthSlots).length, healthWords, "u32");
  const rope = ropeOf(recording, positionIds(maxPromptTokens, grid.h, grid.w, grids));

  const promptTaps: TapTensors = new Map();
  const encodePrompt = record(recording, "prompt", (recorder) => {
    const tap = options.trace === "detail" ? tapInto(recorder, promptTaps) : undefined;
    recordPrompt(recorder, checkpoint, prompt, { operands: options.operands, tap });
  });
  const references = recordReferences(recording, grids, referenceLatents, { taps, images });
  const context = own("context", maxPromptTokens, config.hiddenSize);
  const negativeContext = shape.isGuided ? own("negative context", maxPromptTokens, config.hiddenSize) : undefined;
  const projection = (label: string, into: Tensor): Remembered => {
    const list = record(recording, label, (recorder) => {
      recordContext(recorder, checkpoint.transformer, prompt.embeds, into);
    });
    return { list, holds: undefined };
  };
  const contexts = {
    positive: projection("context", context),
    negative: negativeContext && projection("negative context", negativeContext),
  };

  const modulation = {
    table: modulationTensors(config, modulatedSteps, own),
    current: modulationTensors(config, 1, own),
  };
  const modulate = record(recording, "modulation", (recorder) => {
    const tap = options.trace === "detail" ? tapInto(recorder, taps) : undefined;
    recordModulation(recorder, checkpoint.transformer, sinusoids, modulation.table, tap);
  });

  let velocity: Tensor | undefined;
  const denoise = record(recording, "denoise", (recorder) => {
    const tap = options.trace === "detail" ? tapInto(recorder, taps) : undefined;
    const pass = (text: Tensor, passTap: typeof tap) => {
      const inputs = { latents, references: referenceLatents, context: text, modulation: modulation.current, rope };
      return recordTransformer(recorder, config, checkpoint.transformer, inputs, {
        operands: options.operands,
        tap: passTap,
      });
    };
    velocity = pass(context, tap);
    recorder.keep(velocity);
    if (negativeContext) guidance(recorder, velocity, pass(negativeContext, undefined), step);
    if (options.trace) tapInto(recorder, taps)("velocity", velocity);
    // A velocity of zeros leaves latents that look sound and are noise, so both are examined.
    health(recorder, velocity, healthResult, healthSlots.velocity);
    eulerStep(recorder, latents, velocity, step);
    health(recorder, latents, healthResult, healthSlots.latents);
  });

  let pixels: Tensor | undefined;
  const decode = record(recording, "decode", (recorder) => {
    const all = imageTap(recorder, { taps, images });
    const stages: VaeTap = (name, image) => {
      if (name === "vae.input" || name === "vae.output") all(name, image);
    };
    const tap = options.trace === "detail" ? all : options.trace ? stages : undefined;
    const clean = recorder.scratch("clean latents", latents.rows, latents.cols);
    recorder.copy(latents, clean);
    eulerStep(recorder, clean, velocity!, step);
    const { decoding = decodings[0], operands } = options;
    const picture = recordDecoder(recorder, vae, checkpoint.vae, clean, grid, { ...decoding, operands, tap });
    health(recorder, picture.tensor, healthResult, healthSlots.picture);
    pixels = rgb8(recorder, picture.tensor);
    recorder.keep(pixels);
  });
  return {
    grid,
    latents,
    step,
    sinusoids,
    modulate,
    modulation,
    references,
    prompt: { list: encodePrompt, taps: promptTaps },
    contexts,
    denoise,
    decode,
    health: healthResult,
    pixels: pixels!,
    taps,
    images,
  };
}

/** Records one list and files it. */
function record(recording: Recording, label: string, body: (recorder: Recorder) => void): CommandList {
  const { facts, places, lists, options } = recording;
  const onWorkload = (workload: Workload) => options.onWorkload?.(workload, label);
  const recorder = new Recorder(facts, { onWorkload });
  body(recorder);
  const list = recorder.finish(label, places);
  lists.push(list);
  return list;
}

/** The rotation tables of the joint sequence, on the device. */
function ropeOf({ checkpoint, own, constants }: Recording, ids: Int32Array): { cos: Tensor; sin: Tensor } {
  const { axesDimsRope, ropeTheta, attentionHeadDim } = checkpoint.config.transformer;
  const tokens = ids.length / positionAxes;
  const cos = own("rope cos", tokens, attentionHeadDim / 2);
  const sin = own("rope sin", tokens, attentionHeadDim / 2);
  constants.push((device) => {
    const table = ropeTable(ids, axesDimsRope, ropeTheta);
    writeTensor(device, cos, table.cos);
    writeTensor(device, sin, table.sin);
  });
  return { cos, sin };
}

type Traced = { taps: TapTensors; images: PicturePlan["images"] };

/** One list per reference: they may differ in size. */
function recordReferences(
  recording: Recording,
  grids: LatentGrid[],
  all: Tensor | undefined,
  traced: Traced,
): ReferencePlan[] {
  const { checkpoint, shape, options, own } = recording;
  let row = 0;
  return shape.references.map(({ width, height }, i) => {
    const picture = own(`reference ${i}`, height * width, 3);
    const healthResult = own(`reference ${i} health`, 1, healthWords, "u32");
    const { h, w } = grids[i] as LatentGrid;
    const tokens = sliceRows(all as Tensor, row, row + h * w);
    row += h * w;
    const list = record(recording, `reference ${i}`, (recorder) => {
      // Reference traces hold the inner tensors of the first reference only.
      const tap = options.trace === "detail" && i === 0 ? imageTap(recorder, traced) : undefined;
      const encoded = recordEncoder(
        recorder,
        checkpoint.config.vae,
        checkpoint.vae,
        { tensor: picture, height, width },
        { ...(options.decoding ?? decodings[0]), operands: options.operands, tap },
      );
      recorder.copy(encoded, tokens);
      health(recorder, tokens, healthResult, 0);
    });
    return { picture, tokens, health: healthResult, list, holds: undefined };
  });
}

function imageTap(recorder: Recorder, { taps, images }: Traced): VaeTap {
  const tap = tapInto(recorder, taps);
  return (name, image) => {
    const { tensor, height, width } = image();
    tap(name, tensor);
    images.set(name, { height, width });
  };
}
