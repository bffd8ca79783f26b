// Tuning: which kernels are the fastest on this device for what a checkpoint and a picture size really ask of it. Owns
// the choice, the order and the time that it may take. The problems come from the engine's own planning, run on a device
// that only counts. Measures on a device of its own, so that what goes wrong there leaves the engine's alone.

import { DaybreakError } from "../errors.js";
import { type OpenCheckpoint, openCheckpoint } from "./checkpoint.js";
import { openTriedDevice } from "./device-trial.js";
import { checkPrecision, chooseOperands } from "./engine.js";
import { type Device, type DeviceLimits, matrixConfigsOf, shownLimits, type Tuning } from "./gpu/device.js";
import { kernelSources } from "./gpu/kernel-sources.js";
import { planMemory } from "./memory-plan.js";
import { type Problem, variantName } from "./ops/variants.js";
import type { PictureShape } from "./picture-plan.js";
import { type Precision, type ProgressEvent, resolveRequest } from "./request.js";
import { requestDefaults } from "./request-defaults.js";
import { type Candidate, tryVariants } from "./variant-trials.js";
import type { CheckpointSource } from "./weights/source.js";

/** The choice for one problem, and what it rests on. Times are of the whole problem, milliseconds. */
export type TunedProblem = {
  /** What is taken. */
  variant: string;
  /** Its time; null if none was measured: then it is the built-in choice. */
  ms: number | null;
  /** The built-in choice's time. */
  builtin_ms: number | null;
  /** In the operation's order, the built-in choice first. */
  candidates: Candidate[];
};

/** Choices by problem, for one device; plain data. */
export type TunedProblems = Record<string, TunedProblem>;

/** A variant must be this much faster than the built-in one: less is noise, and would change from day to day. */
export const leastGain = 0.03;
/** Seconds that tuning takes unless more are given; a kernel that is being compiled is waited for. */
export const defaultTuneSeconds = 10;
/** Devices that are lost to bad variants before tuning ends. */
const mostLosses = 3;

export type TuneOptions = {
  /** A page's `navigator.gpu`, or Dawn's. */
  gpu: GPU;
  source: CheckpointSource;
  /** As the engine's. */
  precision?: Precision;
  limits?: Partial<DeviceLimits>;
  /** The picture's size; default: the checkpoint's. */
  width?: number;
  height?: number;
  /** Default {@link defaultTuneSeconds}. */
  seconds?: number;
  /** Choices that are kept. Those that no time was left for are measured again only if `complete` is set. */
  known?: TunedProblems;
  complete?: boolean;
  /** Stage `tune`: problems. Not called if there is nothing to measure. */
  onProgress?: (event: ProgressEvent) => void;
  signal?: AbortSignal;
};

/**
 * Chooses kernels for the pictures of one checkpoint and size. Returns the choices for every problem that has several
 * variants on this device, the most expensive one first: measured as far as the time allows, else the built-in ones.
 * Errors: those of opening the checkpoint and the device, `request.size_invalid`, `request.option_invalid` for a
 * precision, `request.cancelled`. A device that is lost to a variant is no error: the variant is excluded.
 */
export async function tuneKernels(options: TuneOptions): Promise<TunedProblems> {
  const { gpu, limits, source, precision = "auto", width, height, signal } = options;
  checkPrecision(precision);
  const checkpoint = await openCheckpoint(source);
  const asked = resolveRequest({ prompt: "", width, height }, requestDefaults(checkpoint.config));
  const picture = { width: asked.width, height: asked.height, references: [], isGuided: asked.isGuided };
  const device = await openTriedDevice({ gpu, limits });
  try {
    const shape = { ...picture, steps: asked.steps };
    const problems = await posedProblems(device, checkpoint, shape, chooseOperands(device, precision));
    return await tuneProblems(problems, device, { ...options, reopen: () => openTriedDevice({ gpu, limits }) });
  } catch (error) {
    if (signal?.aborted) throw new DaybreakError("request.cancelled", "tuning was cancelled", { cause: error });
    throw error;
  } finally {
    device.close();
  }
}

/**
 * The problems that have several variants on `device`, the most expensive ones first, by their FLOPs in a picture of so
 * many steps. Of those that share a name the largest one stands for all.
 */
export async function posedProblems(
  device: Device,
  checkpoint: OpenCheckpoint,
  { steps, ...shape }: PictureShape & { steps: number },
  operands: "f32" | "f16",
): Promise<Problem[]> {
  const posed = new Map<string, { problem: Problem; flops: number }>();
  const onProblem = (problem: Problem, list: string) => {
    const runs = list === "denoise" ? steps : 1;
    const known = posed.get(problem.name);
    const largest = known && known.problem.flops >= problem.flops ? known.problem : problem;
    posed.set(problem.name, { problem: largest, flops: (known?.flops ?? 0) + runs * problem.flops });
  };
  await planMemory(checkpoint, shape, { operands, device, onProblem });
  return [...posed.values()]
    .filter(({ problem }) => problem.variants(device).length > 1)
    .sort((a, b) => b.flops - a.flops)
    .map(({ problem }) => problem);
}

export type TuneProblemsOptions = Pick<TuneOptions, "seconds" | "known" | "complete" | "onProgress" | "signal"> & {
  /** A new device in the place of one that was lost. */
  reopen: () => Promise<Device>;
};

/** Measures problems in their order until the time is spent. `device` stays open; devices of `reopen` are closed. */
export async function tuneProblems(
  problems: readonly Problem[],
  device: Device,
  { seconds = defaultTuneSeconds, known = {}, complete = false, onProgress, signal, reopen }: TuneProblemsOptions,
): Promise<TunedProblems> {
  const deadline = performance.now() + 1000 * seconds;
  const tuned: TunedProblems = {};
  const fresh = problems.filter((problem) => !isKnown(known[problem.name], problem, device, complete));
  const report = (done: number) => onProgress?.({ stage: "tune", done, total: fresh.length, image: 0, numImages: 0 });
  /** Variants that a device was lost to, for the rest of the tuning. */
  const excluded = new Map<string, string>();
  let current = device;
  try {
    for (const problem of problems) {
      const at = fresh.indexOf(problem);
      if (at < 0) {
        tuned[problem.name] = known[problem.name] as TunedProblem;
        continue;
      }
      report(at);
      let running = "";
      while (!tuned[problem.name]) {
        try {
          const onVariant = (name: string) => {
            running = name;
          };
          const trial = { deadline, excluded, signal, onVariant };
          const isOver = performance.now() > deadline || excluded.size >= mostLosses;
          const candidates = isOver ? untried(problem, current, excluded) : await tryVariants(current, problem, trial);
          tuned[problem.name] = chosen(candidates);
        } catch (error) {
          if (!current.failure || signal?.aborted) throw error;
          excluded.set(running, current.failure.message);
          if (current !== device) current.close();
          current = await reopen();
        }
      }
    }
    if (fresh.length > 0) report(fresh.length);
    return tuned;
  } finally {
    if (current !== device) current.close();
  }
}

/** Whether a choice is of the variants that there are now, and, if it has to be complete, measured as far as possible. */
function isKnown(choice: TunedProblem | undefined, problem: Problem, device: Device, complete: boolean): boolean {
  if (!choice) return false;
  const names = problem.variants(device).map(variantName);
  const isSame = names.join() === choice.candidates.map(({ variant }) => variant).join();
  return isSame && !(complete && choice.ms === null);
}

function untried(problem: Problem, device: Device, excluded: ReadonlyMap<string, string>): Candidate[] {
  return problem.variants(device).map((listed) => {
    const variant = variantName(listed);
    return { variant, ms: null, median_ms: null, error: excluded.get(variant) };
  });
}

/**
 * The choice among candidates, the built-in one first: the fastest if it is faster than the built-in one by
 * {@link leastGain} in its best run and faster in its median one, else the built-in one.
 */
export function chosen(candidates: readonly Candidate[]): TunedProblem {
  const builtin = candidates[0] as Candidate;
  const timed = candidates.filter(({ ms, error }) => ms !== null && error === undefined);
  const best = timed.toSorted((a, b) => (a.ms as number) - (b.ms as number))[0];
  const isFaster =
    best !== undefined &&
    (!timed.includes(builtin) ||
      ((best.ms as number) <= (1 - leastGain) * (builtin.ms as number) &&
        (best.median_ms as number) < (builtin.median_ms as number)));
  // A built-in choice that is wrong is avoided also where time did not suffice to measure another.
  const sound = candidates.find(({ error }) => error === undefined) ?? builtin;
  const taken = isFaster ? best : timed.includes(builtin) ? builtin : sound;
  return { variant: taken.variant, ms: taken.ms, builtin_ms: builtin.ms, candidates: [...candidates] };
}

/** Choices in the form that the device takes. */
export function tuningOf(problems: TunedProblems): Tuning {
  return new Map(Object.entries(problems).map(([name, { variant }]) => [name, variant]));
}

/**
 * What choices hold for: a hash of the adapter, of whatever else decides how kernels run there (`environment`: versions,
 * switches), and of the kernels.
 */
export async function tuningKey(
  { info, features, limits }: Pick<GPUAdapter, "info" | "features" | "limits">,
  environment: readonly string[] = [],
  sources: Readonly<Record<string, string>> = kernelSources,
): Promise<string> {
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = info;
  const facts = [
    [vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize],
    [...features].sort(),
    shownLimits.map((name) => limits[name]),
    matrixConfigsOf(info)
      .map((config) => JSON.stringify(config))
      .sort(),
    environment,
    Object.entries(sources).sort(([a], [b]) => (a < b ? -1 : 1)),
  ];
  return sha256(JSON.stringify(facts));
}

/** In hexadecimal digits. */
export async function sha256(text: string): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
