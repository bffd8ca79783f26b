// Measures whole pictures: cold and warm, per stage, and on request per kernel, with a peer in the same run.
// Warm runs change the prompt each time, so that remembered embeddings do not count. Knows no kernel.

import { spawn } from "node:child_process";
import { type FillWeights, openCheckpoint } from "../src/engine/checkpoint.js";
import { Engine, type StageTiming } from "../src/engine/engine.js";
import { choosePlan, type MemoryPlan } from "../src/engine/memory.js";
import { expectedShape, type Precision, type Timings } from "../src/engine/request.js";
import type { CheckpointSource } from "../src/engine/weights/source.js";
import { DaybreakError } from "../src/errors.js";
import { folderSource } from "../src/node/checkpoint-folder.js";
import { createGpu } from "../src/node/dawn.js";
import { choicesFor, tuneMode } from "../src/node/tune.js";
import { type DeviceBlock, describeDevice, type Spread, spread } from "./machine.js";
import { syntheticModel, syntheticSource, syntheticWeights } from "./synthetic.js";

/** Which checkpoint, and the picture's size where it is not the checkpoint's. */
export type BenchCase = {
  /** A checkpoint's folder, or with `isSynthetic` the name of one whose weights are made on the device. */
  model: string;
  isSynthetic: boolean;
  width?: number;
  height?: number;
  precision: Precision;
  /** As the engine's. */
  memoryBudgetBytes?: number;
};

export type BenchGenerateOptions = BenchCase & {
  steps?: number;
  /** Warm pictures; at least 5 for a claim. */
  runs: number;
  /** Also time every kernel, each dispatch in a pass of its own. */
  kernels: boolean;
  /** A command that does the same work and prints a line `seconds A B C …`; run once, afterwards. */
  peer?: string;
  signal?: AbortSignal;
};

export type BenchGenerateResult = {
  device: DeviceBlock;
  case: { model: string; width: number; height: number; steps: number; precision: "f32" | "f16"; runs: number };
  /** What was planned for the device, and the most that all buffers on it ever took together. */
  memory: { planned: MemoryPlan; peakBytes: number };
  cold: { open_ms: number; first: Timings };
  warm: Record<keyof Timings, Spread>;
  kernels?: StageTiming[];
  /** Ratios are our time over the peer's: below 1 is faster than the peer. */
  peer?: { command: string; total_ms: Spread; ratio: Spread };
};

/** Runs the benchmark. Errors: those of the engine; `request.option_invalid` for a peer that fails or says nothing. */
export async function benchGenerate(options: BenchGenerateOptions): Promise<BenchGenerateResult> {
  const opened = await openModel(options);
  try {
    const result = await measure(opened, options);
    if (options.peer) result.peer = await runPeer(options.peer, result.warm.total_ms);
    return result;
  } finally {
    await opened.source.close();
  }
}

async function measure(opened: OpenModel, options: BenchGenerateOptions): Promise<BenchGenerateResult> {
  const { runs, precision, memoryBudgetBytes, signal } = options;
  const { source, fillWeights } = opened;
  const gpu = await createGpu();
  const { width, height, steps } = options;
  // What `daybreak tune` has measured counts, as it does for whoever draws; measuring now would count as opening.
  const tuning = await choicesFor(tuneMode(), { gpu, source, precision, width, height });
  const began = performance.now();
  const expected = { width, height };
  const engine = await Engine.open({
    gpu,
    source,
    fillWeights,
    precision,
    memoryBudgetBytes,
    expected,
    tuning,
    signal,
  });
  const open_ms = performance.now() - began;
  const device = await describeDevice(gpu);
  const all: Timings[] = [];
  let size = { width: 0, height: 0 };
  let peakBytes = 0;
  let kernels: StageTiming[] | undefined;
  const { precision: operands } = engine.info;
  const { defaults } = engine.bounds;
  try {
    for (let i = 0; i <= runs; i++) {
      const prompt = `a red circle on a blue background, number ${i}`;
      const { images, timings } = await engine.generate({ prompt, width, height, steps, seed: BigInt(i), signal });
      size = images[0]!;
      all.push(timings);
    }
    peakBytes = engine.info.peakDeviceBytes;
    if (options.kernels) kernels = await engine.profile({ width, height });
  } finally {
    await engine.close();
  }
  const [first, ...rest] = all as [Timings, ...Timings[]];
  const stages = Object.keys(first) as (keyof Timings)[];
  const warm = Object.fromEntries(stages.map((stage) => [stage, spread(rest.map((t) => t[stage]))]));
  const shape = { width: size.width, height: size.height };
  return {
    device,
    case: {
      model: modelName(options),
      ...shape,
      steps: options.steps ?? defaults.steps,
      precision: operands,
      runs,
    },
    memory: { planned: (await planPicture(source, { ...options, ...shape }, operands)).planned, peakBytes },
    cold: { open_ms, first },
    warm: warm as BenchGenerateResult["warm"],
    ...(kernels && { kernels }),
  };
}

/** What the case takes on the device; nothing is allocated and no device is asked for. `auto` is planned as f32. */
export async function planGenerate(
  options: BenchCase,
): Promise<{ case: { model: string; width: number; height: number; precision: "f32" | "f16" }; planned: MemoryPlan }> {
  const precision = options.precision === "f16" ? "f16" : "f32";
  const { source } = await openModel(options);
  try {
    const { planned, ...shape } = await planPicture(source, options, precision);
    return { case: { model: modelName(options), ...shape, precision }, planned };
  } finally {
    await source.close();
  }
}

async function planPicture(source: CheckpointSource, asked: BenchCase, operands: "f32" | "f16") {
  const checkpoint = await openCheckpoint(source);
  const { shape } = expectedShape({ width: asked.width, height: asked.height }, checkpoint.model.bounds);
  const planned = await choosePlan(checkpoint, shape, asked.memoryBudgetBytes, { operands });
  return { width: shape.width, height: shape.height, planned };
}

/** As results call it. */
function modelName({ model, isSynthetic }: BenchCase): string {
  return isSynthetic ? `synthetic ${model}` : model;
}

type OpenModel = { source: CheckpointSource & { close(): Promise<void> }; fillWeights?: FillWeights };

async function openModel({ model, isSynthetic }: BenchCase): Promise<OpenModel> {
  if (!isSynthetic) return { source: await folderSource(model) };
  return { source: await syntheticSource(syntheticModel(model)), fillWeights: syntheticWeights(1) };
}

async function runPeer(command: string, ours: Spread): Promise<NonNullable<BenchGenerateResult["peer"]>> {
  const output = await new Promise<string>((resolve, reject) => {
    const child = spawn(command, { shell: true, stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    child.on("error", reject).on("close", () => resolve(text));
  });
  const line = /^seconds((?: +[\d.]+)+)/m.exec(output);
  if (!line) {
    throw new DaybreakError("request.option_invalid", `the peer printed no line "seconds A B …": ${command}`);
  }
  const total_ms = spread(
    (line[1] as string)
      .trim()
      .split(/ +/)
      .map((seconds) => 1000 * Number(seconds)),
  );
  return { command, total_ms, ratio: { min: ours.min / total_ms.min, median: ours.median / total_ms.median } };
}
