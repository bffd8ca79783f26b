// The process that compiles for one GPU. It runs on Mesa's driver over the stub of the kernel's driver, so it must never
// execute: it opens the device without proving it, poses, and compiles one kernel at a time. What the driver prints of a
// kernel on stderr lies between two lines of this process.
// Usage: child.js JSON, an object as ChildTask.

import { readFileSync, writeSync } from "node:fs";
import { openCheckpoint } from "../../src/engine/checkpoint.js";
import { openUnproven } from "../../src/engine/gpu/device.js";
import type { DeviceFacts } from "../../src/engine/gpu/facts.js";
import { kernelSources } from "../../src/engine/gpu/kernel-sources.js";
import { compileKernels } from "../../src/engine/gpu/pipelines.js";
import { expectedShape } from "../../src/engine/request.js";
import type { DaybreakError, ErrorCode } from "../../src/errors.js";
import { folderSource } from "../../src/node/checkpoint-folder.js";
import { createGpuBeside } from "../../src/node/dawn.js";
import { syntheticModel, syntheticSource } from "../synthetic.js";
import { type PosedKernel, posedKernels, settingsOf } from "./posed.js";

/** What is to be compiled. */
export type ChildTask = {
  /** A checkpoint's folder, or the name of a synthetic one. */
  model: { folder: string } | { synthetic: string };
  width?: number;
  height?: number;
  precisions: readonly ("f32" | "f16")[];
  /** Only kernels whose file's name or case holds this. */
  filter?: string;
  /** A file with kernels to take in the place of the build's: stem → linked text. */
  kernelsFile?: string;
  /** Those that were compiled before, by a process that ended in the middle. */
  skip: number;
};

/** A line before a kernel is compiled. */
export type ChildHead = { kernel: string; case: string; variant: string; builtIn: boolean };
/** A line after it. */
export type ChildTail = { compileMs: number; error?: string };
/** The first line. */
export type ChildOpening = { driver: string; kernels: number; size: { width: number; height: number } };

const sampleReference = { width: 512, height: 512 };

/** Instead of all that: why there is nothing to compile. */
export type ChildFailure = { code: ErrorCode; message: string };

/** A task's kernels, with a reference in the picture and guided where it can be: nothing that the model does is left out. */
async function poseTask(
  task: ChildTask,
  facts: DeviceFacts,
): Promise<{ posed: PosedKernel[]; size: ChildOpening["size"] }> {
  const { model, precisions, filter = "" } = task;
  const source = await ("folder" in model
    ? folderSource(model.folder)
    : syntheticSource(syntheticModel(model.synthetic)));
  try {
    const checkpoint = await openCheckpoint(source);
    const { bounds } = checkpoint.model;
    const { shape } = expectedShape({ width: task.width, height: task.height }, bounds);
    const references = bounds.frames > 1 ? [] : [bounds.references.preparedSize(sampleReference)];
    const isGuided = !bounds.isDistilled;
    const posed = posedKernels(facts, checkpoint, { ...shape, references, isGuided }, precisions);
    const { width, height } = shape;
    const isAsked = (p: PosedKernel) => `${p.kernel.layout.stem} ${p.case}`.includes(filter);
    return { posed: posed.filter(isAsked), size: { width, height } };
  } finally {
    await source.close();
  }
}

function say(mark: string, value: ChildOpening | ChildHead | ChildTail | ChildFailure): void {
  writeSync(2, `\n${mark}${JSON.stringify(value)}\n`);
}

async function compileAll(task: ChildTask): Promise<void> {
  if (task.kernelsFile) Object.assign(kernelSources, JSON.parse(readFileSync(task.kernelsFile, "utf8")));
  const gpu = await createGpuBeside(null);
  let device = await openUnproven({ gpu });
  const { posed, size } = await poseTask(task, device);
  say("***", { driver: device.info.description, kernels: posed.length, size });
  for (const { kernel, builtIn, case: name } of posed.slice(task.skip)) {
    say("<<<", { kernel: kernel.layout.stem, case: name, variant: settingsOf(kernel), builtIn });
    const began = performance.now();
    let error: string | undefined;
    try {
      await compileKernels(device, [kernel]);
    } catch (thrown) {
      error = (thrown as Error).message;
      device = await openUnproven({ gpu }); // one that has failed compiles nothing more
    }
    say(">>>", { compileMs: Math.round(performance.now() - began), error });
  }
}

try {
  await compileAll(JSON.parse(process.argv[2] as string) as ChildTask);
  process.exit(0);
} catch (error) {
  const { code = "engine.internal", message } = error as Partial<DaybreakError> & Error;
  say("!!!", { code, message });
  process.exit(1);
}
