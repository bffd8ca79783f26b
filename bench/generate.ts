// Measures whole pictures: cold and warm, per stage, and on request per kernel, with a peer in the same run.
// Warm runs change the prompt each time, so that remembered embeddings do not count. Knows no kernel.

import { spawn } from "node:child_process";
import { loadCheckpoint } from "../src/engine/checkpoint.js";
import { Engine } from "../src/engine/engine.js";
import type { Timing } from "../src/engine/gpu/commands.js";
import { openDevice } from "../src/engine/gpu/device.js";
import { Readback } from "../src/engine/gpu/readback.js";
import { buildPicturePlan } from "../src/engine/picture-plan.js";
import { PromptEncoder } from "../src/engine/prompt-encoder.js";
import type { Precision, Timings } from "../src/engine/request.js";
import { DaybreakError } from "../src/errors.js";
import { folderSource } from "../src/node/checkpoint-folder.js";
import { createGpu } from "../src/node/dawn.js";
import { type DeviceBlock, describeDevice, type Spread, spread } from "./machine.js";

export type BenchGenerateOptions = {
  model: string;
  width?: number;
  height?: number;
  steps?: number;
  /** Warm pictures; at least 5 for a claim. */
  runs: number;
  precision: Precision;
  /** Also time every kernel, each dispatch in a pass of its own. */
  kernels: boolean;
  /** A command that does the same work and prints a line `seconds A B C …`; run once, afterwards. */
  peer?: string;
  signal?: AbortSignal;
};

export type BenchGenerateResult = {
  device: DeviceBlock;
  case: { model: string; width: number; height: number; steps: number; precision: "f32" | "f16"; runs: number };
  cold: { open_ms: number; first: Timings };
  warm: Record<keyof Timings, Spread>;
  kernels?: (Timing & { stage: string })[];
  /** Ratios are our time over the peer's: below 1 is faster than the peer. */
  peer?: { command: string; total_ms: Spread; ratio: Spread };
};

/** Runs the benchmark. Errors: those of the engine; `request.option_invalid` for a peer that fails or says nothing. */
export async function benchGenerate(options: BenchGenerateOptions): Promise<BenchGenerateResult> {
  const { model, runs, precision, signal } = options;
  const source = await folderSource(model);
  const gpu = await createGpu();
  const began = performance.now();
  const engine = await Engine.open({ gpu, source, precision, signal });
  const open_ms = performance.now() - began;
  const device = await describeDevice(gpu); // not before: finding the adapter is a part of opening
  const all: Timings[] = [];
  let size = { width: 0, height: 0 };
  const { isDistilled, precision: operands } = engine.info;
  try {
    for (let i = 0; i <= runs; i++) {
      const { width, height, steps } = options;
      const prompt = `a red circle on a blue background, number ${i}`;
      const { images, timings } = await engine.generate({ prompt, width, height, steps, seed: BigInt(i), signal });
      size = images[0]!;
      all.push(timings);
    }
  } finally {
    await engine.close();
  }
  const [first, ...rest] = all as [Timings, ...Timings[]];
  const stages = Object.keys(first) as (keyof Timings)[];
  const warm = Object.fromEntries(stages.map((stage) => [stage, spread(rest.map((t) => t[stage]))]));
  const shape = { width: size.width, height: size.height };
  const result: BenchGenerateResult = {
    device,
    case: { model, ...shape, steps: options.steps ?? (isDistilled ? 4 : 50), precision: operands, runs },
    cold: { open_ms, first },
    warm: warm as BenchGenerateResult["warm"],
  };
  if (options.kernels) result.kernels = await profileKernels(model, shape, operands);
  await source.close();
  if (options.peer) result.peer = await runPeer(options.peer, result.warm.total_ms);
  return result;
}

/** Times every dispatch of the prompt, one step and the decoder with timestamps. */
async function profileKernels(model: string, shape: { width: number; height: number }, operands: "f32" | "f16") {
  const source = await folderSource(model);
  const device = await openDevice({ gpu: await createGpu() });
  try {
    if (!device.features.has("timestamp-query")) {
      throw new DaybreakError(
        "device.feature_missing",
        "timing kernels needs timestamp-query, which this device lacks",
      );
    }
    const checkpoint = await loadCheckpoint(device, source, {});
    const promptEncoder = await PromptEncoder.open(device, new Readback(device), checkpoint, { operands });
    const picture = { ...shape, references: [], isGuided: false };
    const plan = await buildPicturePlan(device, checkpoint, promptEncoder.embeds, picture, { operands });
    const timings: (Timing & { stage: string })[] = [];
    const lists = { prompt: promptEncoder.list, "one step": plan.denoise, decode: plan.decode };
    for (const [stage, list] of Object.entries(lists)) {
      await list.profile(); // compiles
      for (const timing of await list.profile()) timings.push({ stage, ...timing });
    }
    return timings;
  } finally {
    device.close();
    await source.close();
  }
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
