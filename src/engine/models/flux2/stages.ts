// The stages of FLUX.2 [klein] for one picture shape: the tensors that live through a picture, the lists that are recorded
// once and replayed, and what the host writes before each. The text goes through Qwen3 into a context, references through
// the VAE's encoder into tokens beside those of the picture, and every step runs the transformer and moves the latents.

import type {
  ConditionStage,
  DecodeStage,
  HealthSlot,
  PromptStage,
  RecordStages,
  Run,
  StageRecorder,
  Stages,
  Step,
  WeightsByName,
} from "../../family.js";
import type { CommandList } from "../../gpu/command-list.js";
import type { Recorder } from "../../gpu/recorder.js";
import { copyTensors, sliceRows, type Tensor, writeTensor } from "../../gpu/tensor.js";
import type { RgbImage, Size } from "../../images.js";
import { eulerStep, guidance } from "../../ops/elementwise.js";
import { health, healthWords } from "../../ops/health.js";
import { rgb8 } from "../../ops/pixels.js";
import type { PictureShape, TraceSink } from "../../request.js";
import { eulerValues, stepCols } from "../../sampling/euler.js";
import { sha256 } from "../../sha256.js";
import { judgeSlots, Remembered, type TapTensors, tapInto, traceTensor } from "../../stages.js";
import type { PromptEncoder, RecordedEncoder } from "../qwen3/prompt-encoder.js";
import { type CheckpointConfig, promptTokens, tokenPixels } from "./config.js";
import { type LatentGrid, latentGrid, latentsToTokens, tokensToLatents } from "./latents.js";
import { normalizeReference, prepareReference } from "./reference-image.js";
import { positionAxes, positionIds, ropeTable } from "./rope.js";
import { schedule, timestepEmbedding } from "./schedule.js";
import {
  type Modulation,
  modulationTensors,
  recordContext,
  recordModulation,
  recordTransformer,
} from "./transformer.js";
import { recordDecoder, recordEncoder, type VaeTap } from "./vae.js";

/** Steps whose modulation is computed at once. */
const modulatedSteps = 4;

/** What all parts of a recording share. */
type Recording = {
  recorder: StageRecorder;
  config: CheckpointConfig;
  weights: WeightsByName;
  shape: PictureShape;
  grid: LatentGrid;
  /** [N, C]: noise at first, denoised in place. */
  latents: Tensor;
  /** [1, 8]: what the host writes before each step and each decoding, see sampling/euler.ts. */
  step: Tensor;
  /** Rows: see {@link healthRows}. */
  healthResult: Tensor;
  traced: Traced;
};

/** What a traced plan keeps of the steps and the VAE; channels-last images are [h·w, C] with their extents in `images`. */
type Traced = { taps: TapTensors; images: Map<string, Size> };

/** Rows of the health tensor: a step's velocity, the latents after it, the decoder's output. */
const healthRows = { velocity: 0, latents: 1, picture: 2 } as const;

/** Records the stages of one shape with the checkpoint's sizes; `encoder` outlives the plan. */
export function stagesOf(config: CheckpointConfig, encoder: PromptEncoder): RecordStages {
  return (recorder, weights, shape) => {
    const grid = latentGrid(shape.width, shape.height, tokenPixels(config));
    const recording: Recording = {
      ...{ recorder, config, weights, shape, grid },
      latents: recorder.own("latents", grid.h * grid.w, config.transformer.inChannels),
      step: recorder.own("step", 1, stepCols),
      healthResult: recorder.own("health", Object.keys(healthRows).length, healthWords, "u32"),
      traced: { taps: new Map(), images: new Map() },
    };
    const encoding = encoder.record(recorder, weights.textEncoder!);
    const references = recordReferences(recording);
    const contexts = recordContexts(recording, encoder, encoding);
    const modulation = recordModulations(recording);
    const denoising = recordDenoising(recording, contexts, modulation.current, references.tokens);
    const decoding = recordDecoding(recording, denoising.velocity);
    return {
      prompts: { positive: contexts.positive.stage, negative: contexts.negative?.stage },
      conditions: references.stages,
      noise: noiseOf(recording),
      steps: (count, scale) => stepsOf(recording, modulation, denoising, { count, scale }),
      decode: decoding.stage,
      lists: [
        ["prompt", encoding.list],
        ["context", contexts.positive.list],
        [`modulation of ${modulatedSteps} steps`, modulation.list],
        ["one step", denoising.list],
        ["decode", decoding.list],
      ],
    };
  };
}

/** The references' tokens [R, C], if there are any, and a stage for each: they may differ in size. */
function recordReferences(recording: Recording): { tokens: Tensor | undefined; stages: ConditionStage[] } {
  const { recorder, config, shape } = recording;
  const grids = shape.references.map(({ width, height }) => latentGrid(width, height, tokenPixels(config)));
  const rows = grids.reduce((total, { h, w }) => total + h * w, 0);
  if (rows === 0) return { tokens: undefined, stages: [] };
  const all = recorder.own("references", rows, config.transformer.inChannels);
  let row = 0;
  const stages = shape.references.map((size, i) => {
    const { h, w } = grids[i] as LatentGrid;
    const tokens = sliceRows(all, row, row + h * w);
    row += h * w;
    return recordReference(recording, i, size, tokens);
  });
  return { tokens: all, stages };
}

/** Reference i: its pixels [H·W, 3] in −1 … 1 through the VAE's encoder. */
function recordReference(
  { recorder, config, weights, traced }: Recording,
  i: number,
  { width, height }: Size,
  tokens: Tensor,
): ConditionStage {
  const picture = recorder.own(`reference ${i}`, height * width, 3);
  const healthResult = recorder.own(`reference ${i} health`, 1, healthWords, "u32");
  const list = recorder.list(`reference ${i}`, "picture", (commands) => {
    // Reference traces hold the inner tensors of the first reference only.
    const tap = recorder.trace === "detail" && i === 0 ? imageTap(commands, traced) : undefined;
    const { operands, decoding } = recorder;
    const image = { tensor: picture, height, width };
    commands.copy(recordEncoder(commands, config.vae, weights.vae!, image, { ...decoding, operands, tap }), tokens);
    health(commands, tokens, healthResult, 0);
  });
  const held = new Remembered();
  const slots = [{ tensor: healthResult, row: 0, what: `the VAE's encoder of reference ${i + 1}` }];
  return {
    encode: async (image, run) => {
      const prepared = prepareReference(image, tokenPixels(config));
      await held.once(await sha256(prepared.data), async () => {
        writeTensor(run.device, picture, normalizeReference(prepared));
        await list.submit(run.signal);
        await judgeSlots(slots, run.readback);
      });
    },
    trace: (sink, run) => traceTensor(sink, run, `reference.${i}.tokens`, tokens),
  };
}

/** A pass's text: its context [T, D], and the list that projects the prompt's embeddings into it. */
type Context = { context: Tensor; list: CommandList; stage: PromptStage };

/** For the positive pass and, if the picture is guided, for the negative one. */
function recordContexts(
  { recorder, config, weights, shape }: Recording,
  encoder: PromptEncoder,
  encoding: RecordedEncoder,
): { positive: Context; negative: Context | undefined } {
  const contextOf = (label: string, trace: NonNullable<PromptStage["trace"]>): Context => {
    const context = recorder.own(label, promptTokens, config.transformer.hiddenSize);
    const list = recorder.list(label, "prompt", (commands) => {
      recordContext(commands, weights.transformer!, encoder.embeds, context);
    });
    const held = new Remembered();
    const encode: PromptStage["encode"] = (prompt, run, options) =>
      held.once(
        prompt.text,
        async () => {
          await encoding.encode(prompt, run, options);
          await list.submit(run.signal);
        },
        options,
      );
    return { context, list, stage: { encode, trace } };
  };
  return {
    positive: contextOf("context", (sink, prompt, run) => tracePrompt(sink, prompt, run, encoder, encoding)),
    negative: shape.isGuided
      ? contextOf("negative context", (sink, _, run) => traceTensor(sink, run, "negative.embeds", encoder.embeds))
      : undefined,
  };
}

/** The modulation of {@link modulatedSteps} steps, a row each, and the row of the current step. */
type Modulations = { list: CommandList; sinusoids: Tensor; table: Modulation; current: Modulation };

function recordModulations({ recorder, config, weights, traced }: Recording): Modulations {
  const { transformer } = config;
  const sinusoids = recorder.own("sinusoids", modulatedSteps, transformer.timestepGuidanceChannels);
  const table = modulationTensors(transformer, modulatedSteps, recorder.own);
  const current = modulationTensors(transformer, 1, recorder.own);
  const list = recorder.list("modulation", "picture", (commands) => {
    const tap = recorder.trace === "detail" ? tapInto(commands, traced.taps) : undefined;
    recordModulation(commands, weights.transformer!, sinusoids, table, tap);
  });
  return { list, sinusoids, table, current };
}

type Denoising = { list: CommandList; velocity: Tensor };

/** One step: the velocity of one or two passes, and the latents along it. */
function recordDenoising(
  recording: Recording,
  contexts: ReturnType<typeof recordContexts>,
  modulation: Modulation,
  references: Tensor | undefined,
): Denoising {
  const { recorder, config, weights, latents, step, healthResult, traced } = recording;
  const rope = ropeOf(recording);
  let denoised: Tensor | undefined;
  const list = recorder.list("denoise", "step", (commands) => {
    const tap = recorder.trace === "detail" ? tapInto(commands, traced.taps) : undefined;
    const pass = ({ context }: Context, passTap: typeof tap) =>
      recordTransformer(
        commands,
        config.transformer,
        weights.transformer!,
        { latents, references, context, modulation, rope },
        { operands: recorder.operands, tap: passTap },
      );
    const velocity = pass(contexts.positive, tap);
    commands.keep(velocity);
    if (contexts.negative) guidance(commands, velocity, pass(contexts.negative, undefined), step);
    if (recorder.trace) tapInto(commands, traced.taps)("velocity", velocity);
    // A velocity of zeros leaves latents that look sound and are noise, so both are examined.
    health(commands, velocity, healthResult, healthRows.velocity);
    eulerStep(commands, latents, velocity, step);
    health(commands, latents, healthResult, healthRows.latents);
    denoised = velocity;
  });
  return { list, velocity: denoised! };
}

/** The rotation tables of the joint sequence. */
function ropeOf({ recorder, config, shape, grid }: Recording): { cos: Tensor; sin: Tensor } {
  const { axesDimsRope, ropeTheta, attentionHeadDim } = config.transformer;
  const grids = shape.references.map(({ width, height }) => latentGrid(width, height, tokenPixels(config)));
  const ids = positionIds(promptTokens, grid.h, grid.w, grids);
  const tokens = ids.length / positionAxes;
  const cos = recorder.own("rope cos", tokens, attentionHeadDim / 2);
  const sin = recorder.own("rope sin", tokens, attentionHeadDim / 2);
  recorder.constant((device) => {
    const table = ropeTable(ids, axesDimsRope, ropeTheta);
    writeTensor(device, cos, table.cos);
    writeTensor(device, sin, table.sin);
  });
  return { cos, sin };
}

/** Latents, moved along the last step's velocity by what the step tensor says, to pixels; neither of the two changes. */
function recordDecoding(recording: Recording, velocity: Tensor): { list: CommandList; stage: DecodeStage } {
  const { recorder, config, weights, shape, grid, latents, step, healthResult, traced } = recording;
  let rgb: Tensor | undefined;
  const list = recorder.list("decode", "picture", (commands) => {
    const all = imageTap(commands, traced);
    const ends: VaeTap = (name, image) => {
      if (name === "vae.input" || name === "vae.output") all(name, image);
    };
    const tap = recorder.trace === "detail" ? all : recorder.trace ? ends : undefined;
    const clean = commands.scratch("clean latents", latents.rows, latents.cols);
    commands.copy(latents, clean);
    eulerStep(commands, clean, velocity, step);
    const { operands, decoding } = recorder;
    const picture = recordDecoder(commands, config.vae, weights.vae!, clean, grid, { ...decoding, operands, tap });
    health(commands, picture.tensor, healthResult, healthRows.picture);
    rgb = rgb8(commands, picture.tensor);
    commands.keep(rgb);
  });
  const pixels = rgb!;
  const read = async (_frame: number, sigma: number, { device, readback, signal }: Run): Promise<RgbImage> => {
    const { width, height } = shape;
    writeTensor(device, step, eulerValues(sigma, 0));
    await list.submit(signal);
    const data = await readback.bytes(pixels.storage.buffer as GPUBuffer, 0, width * height * 3);
    return { width, height, data };
  };
  const slots: HealthSlot[] = [{ tensor: healthResult, row: healthRows.picture, what: "the VAE's decoder" }];
  return { list, stage: { frames: 1, read, health: slots, trace: (sink, run) => traceImages(sink, run, traced) } };
}

function noiseOf({ latents, grid }: Recording): Stages["noise"] {
  return {
    shape: [latents.cols, grid.h, grid.w],
    write: (values, { device }) => writeTensor(device, latents, latentsToTokens(values, latents.cols)),
  };
}

/** `count` steps with guidance of that scale. */
function stepsOf(
  recording: Recording,
  modulation: Modulations,
  denoising: Denoising,
  { count, scale }: { count: number; scale: number },
): Step[] {
  const { grid, step, healthResult } = recording;
  // Sigmas depend on the output's tokens only, also with references.
  const { sigmas, timesteps } = schedule(count, grid.h * grid.w);
  const sinusoids = timestepEmbedding(timesteps, modulation.sinusoids.cols);
  return Array.from({ length: count }, (_, i): Step => {
    const [sigma, next] = [sigmas[i] as number, sigmas[i + 1] as number];
    const values = eulerValues(sigma, next, scale);
    const what = `the transformer in step ${i + 1} of ${count}`;
    return {
      ...{ sigma, next },
      run: async (run) => {
        writeTensor(run.device, step, values);
        if (i % modulatedSteps === 0) await modulate(modulation, sinusoids, i, run);
        takeModulation(modulation, i % modulatedSteps, run);
        await denoising.list.submit(run.signal);
      },
      health: [healthRows.velocity, healthRows.latents].map((row) => ({ tensor: healthResult, row, what })),
      trace: (sink, run) => traceStep(sink, run, recording, i),
    };
  });
}

/** The modulation of the steps from `first` on, as many as are computed at once; rows past the last step mean nothing. */
async function modulate(
  modulation: Modulations,
  sinusoids: Float32Array,
  first: number,
  { device, signal }: Run,
): Promise<void> {
  const { rows, cols } = modulation.sinusoids;
  const values = new Float32Array(rows * cols);
  values.set(sinusoids.subarray(first * cols, (first + rows) * cols));
  writeTensor(device, modulation.sinusoids, values);
  await modulation.list.submit(signal);
}

/** Makes a row of the modulation table the current one. */
function takeModulation({ table, current }: Modulations, row: number, { device }: Run): void {
  const names = ["img", "txt", "single", "out"] as const;
  copyTensors(
    device,
    names.map((name) => [sliceRows(table[name], row, row + 1), current[name]]),
  );
}

function imageTap(recorder: Recorder, { taps, images }: Traced): VaeTap {
  const tap = tapInto(recorder, taps);
  return (name, image) => {
    const { tensor, height, width } = image();
    tap(name, tensor);
    images.set(name, { height, width });
  };
}

async function tracePrompt(
  sink: TraceSink,
  { ids, length }: Parameters<PromptStage["encode"]>[0],
  run: Run,
  encoder: PromptEncoder,
  { taps }: RecordedEncoder,
): Promise<void> {
  await traceTensor(sink, run, "prompt.embeds", encoder.embeds);
  sink.write("prompt.input_ids", { dtype: "I32", shape: [ids.length], data: ids });
  sink.write("prompt.length", { dtype: "I32", shape: [1], data: Int32Array.of(length) });
  if (!sink.detail) return;
  for (const [name, tensor] of taps) await traceTensor(sink, run, name, tensor);
}

/** After step i: velocity and latents; after the first one the inner tensors, too. */
async function traceStep(sink: TraceSink, run: Run, { latents, traced }: Recording, i: number): Promise<void> {
  await traceTensor(sink, run, `step.${i}.velocity`, traced.taps.get("velocity") as Tensor);
  await traceTensor(sink, run, `step.${i}.latents`, latents);
  if (i > 0 || !sink.detail) return;
  for (const [name, tensor] of traced.taps) {
    if (!name.startsWith("step.0.")) continue;
    // Vectors are tensors of one row here; traces hold them without it. A picture of one token has one row as well.
    const isVector = /^step\.0\.(temb|mod\.\w+)$/.test(name);
    await traceTensor(sink, run, name, tensor, isVector ? [tensor.cols] : undefined);
  }
}

/** The VAE's images, of the references' encoder and of the decoder, in the order [C, h, w]. */
async function traceImages(sink: TraceSink, { readback }: Run, { taps, images }: Traced): Promise<void> {
  for (const [name, { height, width }] of images) {
    const tensor = taps.get(name) as Tensor;
    const chw = tokensToLatents(await readback.f32(tensor), tensor.cols);
    sink.write(name, { dtype: "F32", shape: [tensor.cols, height, width], data: chw });
  }
}
