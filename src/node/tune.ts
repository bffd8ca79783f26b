// When kernels are measured and which measured choices an engine gets: joins the engine's tuning with the cache. Knows no
// kernel. Choices are a matter of speed alone, so nothing that goes wrong with them keeps an engine from opening.

import type { DeviceLimits, Tuning } from "../engine/gpu/facts.js";
import type { Precision, ProgressEvent } from "../engine/request.js";
import { sha256 } from "../engine/sha256.js";
import { type TuneOptions, tuneKernels } from "../engine/tune.js";
import { type TunedWorkload, type TunedWorkloads, tuningKey, tuningOf } from "../engine/tuning/choices.js";
import type { CheckpointSource } from "../engine/weights/source.js";
import { DaybreakError } from "../errors.js";
import { withLineFeeds } from "../text.js";
import { dawnFacts } from "./dawn.js";
import { packageManifest } from "./package.js";
import { addTuning, type MeasuredCase, readTuning, tuningFile } from "./tuning-cache.js";

/**
 * `auto`: take what was measured on this device, and what was not, measure now, which happens once for a checkpoint and
 * size and takes about ten seconds at most. `cached`: take what was measured, measure nothing. `off`: the built-in choices.
 */
export type TuneMode = "auto" | "cached" | "off";

const modes: readonly TuneMode[] = ["auto", "cached", "off"];

/**
 * The mode that holds: what the environment variable DAYBREAK_TUNE says, which is for a whole machine or test run, else
 * what the caller asks for, else `cached`. Errors: `request.option_invalid`.
 */
export function tuneMode(asked: TuneMode = "cached"): TuneMode {
  const text = process.env.DAYBREAK_TUNE || asked;
  const mode = modes.find((known) => known === text);
  if (mode) return mode;
  throw new DaybreakError("request.option_invalid", `got the tuning mode ${text}, expected ${modes.join(", ")}`);
}

/** What is drawn, as far as it decides which workloads there are. */
export type TuneCase = {
  gpu: GPU;
  /** Whether `gpu` is the caller's and not this program's Dawn. */
  isForeign?: boolean;
  source: CheckpointSource;
  precision?: Precision;
  limits?: Partial<DeviceLimits>;
  width?: number;
  height?: number;
  /** As `tuneKernels` takes them; default 10. */
  seconds?: number;
  onProgress?: (event: ProgressEvent) => void;
  signal?: AbortSignal;
};

/**
 * The choices for an engine. Whatever goes wrong gives the choices that are known; the engine meets the same trouble and
 * says so, if it is the checkpoint's or the device's. Errors: `request.cancelled`.
 */
export async function choicesFor(mode: TuneMode, what: TuneCase): Promise<Tuning> {
  if (mode === "off") return new Map();
  let key: string | undefined;
  try {
    key = await deviceKey(what.gpu, what.isForeign);
    if (key === undefined) return new Map();
    const known = await readTuning(key);
    if (mode === "auto" && isDue(known?.cases[await caseName(what)])) {
      await measure(key, what, { known: known?.workloads }, (found) => addTuning(found).catch(ignoreUnwritable));
    }
  } catch (error) {
    if (!(error instanceof DaybreakError) || error.code === "request.cancelled") throw error;
  }
  // Those of other sizes as well: they may be drawn later.
  return tuningOf((key && (await readTuning(key))?.workloads) || {});
}

/**
 * A measurement that has not ended is another program's, or the driver ended the process: then the next one must not
 * meet the same end. After a day it is tried again.
 */
const retryAfter_ms = 24 * 3600 * 1000;

function isDue(earlier: MeasuredCase | undefined): boolean {
  return !earlier || (!earlier.isDone && Date.now() - earlier.begun_ms > retryAfter_ms);
}

/**
 * Measures and keeps what was found: also that nothing was, and what was found until it failed. Returns the case's
 * choices. Errors: those of `tuneKernels` and of `add`.
 */
async function measure(
  key: string,
  what: TuneCase,
  options: Pick<TuneOptions, "known" | "complete">,
  add: (found: Parameters<typeof addTuning>[0]) => Promise<unknown>,
): Promise<TunedWorkloads> {
  const name = await caseName(what);
  const begun_ms = Date.now();
  const workloads: TunedWorkloads = {};
  const keep = (measured: MeasuredCase) => add({ key, workloads, cases: { [name]: measured } });
  await keep({ begun_ms, isDone: false });
  try {
    const onChoice = (workload: string, choice: TunedWorkload) => void Object.assign(workloads, { [workload]: choice });
    const tuned = await tuneKernels({ ...what, ...options, onChoice });
    await keep({ begun_ms, isDone: true });
    return tuned;
  } catch (error) {
    // Whoever cancels may want it the next time; what failed would fail again.
    await keep(what.signal?.aborted ? { begun_ms: 0, isDone: false } : { begun_ms, isDone: true });
    throw error;
  }
}

/** What cannot be written is measured anew by the next process; the choices hold all the same. */
function ignoreUnwritable(error: unknown): void {
  if (!(error instanceof DaybreakError) || error.code !== "output.unwritable") throw error;
}

export type TuneResult = {
  /** Those of the case. */
  workloads: TunedWorkloads;
  /** Where they are kept. */
  file: string;
  /** When choices were last added to it, as an ISO date. */
  tuned_at: string;
};

/**
 * Measures what was not measured before, or with `force` everything, and keeps it.
 * Errors: those of `tuneKernels`; `device.no_adapter`; `output.unwritable`, before anything is measured for nothing.
 */
export async function tuneAndKeep(what: TuneCase, { force = false }: { force?: boolean } = {}): Promise<TuneResult> {
  const key = await deviceKey(what.gpu, what.isForeign);
  if (key === undefined) {
    throw new DaybreakError("device.no_adapter", "no WebGPU adapter answered: see `daybreak doctor`");
  }
  const known = force ? {} : (await readTuning(key))?.workloads;
  const tuned = await measure(key, what, { known, complete: true }, addTuning);
  // Another program may have removed the file meanwhile, or measured the same.
  const { workloads = {}, tuned_at = new Date().toISOString() } = (await readTuning(key)) ?? {};
  const kept = Object.entries(tuned).map(([name, choice]) => [name, workloads[name] ?? choice]);
  return { workloads: Object.fromEntries(kept), file: tuningFile(key), tuned_at };
}

/** The key of the device that an engine gets from `gpu`; undefined if there is none. */
export async function deviceKey(gpu: GPU, isForeign = false): Promise<string | undefined> {
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return undefined;
  // Another version may have other variants of the same kernels.
  const { version } = packageManifest();
  return tuningKey(adapter, [`daybreak ${version}`, ...(isForeign ? ["the caller's GPU object"] : dawnFacts())]);
}

const configFiles = ["model_index.json", "transformer/config.json", "text_encoder/config.json", "vae/config.json"];
const mostConfigBytes = 1024 * 1024;

/** What decides which workloads there are, short of the weights' types. */
async function caseName({ source, precision, limits, width, height }: TuneCase): Promise<string> {
  const configs = await Promise.all(configFiles.map((path) => source.read(path, 0, mostConfigBytes)));
  const texts = configs.map((bytes) => withLineFeeds(new TextDecoder().decode(bytes)));
  return (await sha256(JSON.stringify([texts, precision ?? "auto", limits ?? {}, width, height]))).slice(0, 32);
}
