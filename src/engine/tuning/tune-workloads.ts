// Measures workloads in their order until the time is spent, and chooses a variant for each. Owns the time, and the
// device that is measured on. Knows no model, nor where workloads come from.

import type { DaybreakError } from "../../errors.js";
import type { Device } from "../gpu/device.js";
import { choiceKey, type Workload } from "../ops/variants.js";
import type { ProgressEvent } from "../request.js";
import { chosen, noTime, type TunedWorkload, type TunedWorkloads } from "./choices.js";
import { type Candidate, candidatesOf, closeAfter, endsBy, isShortOfMemory, tryVariants } from "./trials.js";

/** Seconds that tuning takes unless another number is given. */
const defaultSeconds = 10;
/** How long a run that has begun may go on after the deadline; it is not waited for any longer. */
const grace_ms = 1000;
/** A variant is not tried again if it had been waited for so long when the time was up. */
const tooSlow_ms = 3000;
/** Devices that are lost to bad variants before tuning ends. */
const mostLosses = 3;

export type TuneWorkloadsOptions = {
  /** Default 10. */
  seconds?: number;
  /** Choices that are kept. Those that could not be measured are measured again only if `complete` is set. */
  known?: TunedWorkloads;
  complete?: boolean;
  /** Is told every choice that is not known, as soon as it is made: it holds also if tuning fails later. */
  onChoice?: (key: string, choice: TunedWorkload) => void;
  /** Stage `tune`: workloads. Not called if there is nothing to measure. */
  onProgress?: (event: ProgressEvent) => void;
  signal?: AbortSignal;
};

/**
 * Measures workloads in their order until the time is spent, on a device from `open`, and on another one each time that
 * one is lost. Errors: those of `open`; what `signal` was aborted with.
 */
export async function tuneWorkloads(
  workloads: readonly Workload[],
  open: () => Promise<Device>,
  { seconds = defaultSeconds, known = {}, complete = false, onChoice, onProgress, signal }: TuneWorkloadsOptions,
): Promise<TunedWorkloads> {
  const deadline = performance.now() + 1000 * seconds;
  const bench: Bench = { device: await open(), open, deadline, signal, excluded: new Map() };
  const keyed = workloads.map((workload) => [choiceKey(bench.device, workload), workload] as const);
  const isFresh = (key: string) => !known[key] || (complete && known[key].unmeasured !== undefined);
  const total = keyed.filter(([key]) => isFresh(key)).length;
  const report = (done: number) => onProgress?.({ stage: "tune", done, total, image: 0, numImages: 0 });
  const tuned: TunedWorkloads = {};
  let done = 0;
  try {
    for (const [key, workload] of keyed) {
      if (!isFresh(key)) {
        tuned[key] = known[key] as TunedWorkload;
        continue;
      }
      report(done++);
      tuned[key] = await tuneWorkload(bench, workload, known[key]?.candidates);
      onChoice?.(key, tuned[key]);
    }
    if (total > 0) report(total);
    return tuned;
  } finally {
    if (bench.abandoned) closeAfter(bench.abandoned, bench.device);
    else bench.device.close();
  }
}

/** What is measured on. */
type Bench = {
  device: Device;
  /** A new device in the place of one that was lost. */
  open: () => Promise<Device>;
  deadline: number;
  signal?: AbortSignal;
  /** Variants that a device was lost to, for the rest of the tuning. */
  excluded: Map<string, string>;
  /** A trial that still runs on the device and is no longer waited for. */
  abandoned?: Promise<void>;
};

/** `known` candidates that failed are not tried again: they may be why nothing was measured. */
async function tuneWorkload(
  bench: Bench,
  workload: Workload,
  known: readonly Candidate[] = [],
): Promise<TunedWorkload> {
  const { deadline, signal, excluded } = bench;
  for (;;) {
    signal?.throwIfAborted();
    const { device } = bench;
    const failed = known.flatMap(({ variant, error }) => (error === undefined ? [] : [[variant, error] as const]));
    const candidates = candidatesOf(device, workload, new Map([...failed, ...excluded]));
    const choice = (unmeasured?: string) => ({ ...chosen(workload.name, candidates), unmeasured });
    if (performance.now() > deadline) return choice(noTime);
    if (excluded.size >= mostLosses) return choice(`the device was lost to ${mostLosses} kernels before`);
    const latest = { variant: "", since: 0 };
    const onVariant = (variant: string) => void Object.assign(latest, { variant, since: performance.now() });
    const trial = tryVariants(device, workload, candidates, { deadline, signal, onVariant });
    try {
      if (await endsBy(deadline + grace_ms, trial, signal)) {
        const isUp = performance.now() > deadline && candidates.every(({ ms }) => ms === null);
        return choice(isUp ? noTime : undefined);
      }
      bench.abandoned = trial;
      signal?.throwIfAborted();
      return { ...abandoned(workload, candidates, latest), unmeasured: noTime };
    } catch (error) {
      if (signal?.aborted) throw error;
      if (isShortOfMemory(device, error)) return choice((error as DaybreakError).message);
      if (!device.failure) throw error;
      excluded.set(latest.variant, device.failure.message);
      device.close();
      bench.device = await bench.open();
    }
  }
}

/** The choice while a variant still compiles or runs. The trial goes on with `candidates`, so they are copied. */
function abandoned(
  { name, portable }: Workload,
  candidates: readonly Candidate[],
  { variant, since }: { variant: string; since: number },
): TunedWorkload {
  const waited_ms = performance.now() - since;
  const copies = candidates.map((candidate, i) => {
    // The engine compiles the built-in choice in any case, and no variant can be checked without the portable kernel.
    const isNeeded = i === 0 || variant.split(" ")[0] === portable;
    if (isNeeded || candidate.variant !== variant || waited_ms < tooSlow_ms) return { ...candidate };
    return { ...candidate, error: `it had not run after ${(waited_ms / 1000).toFixed(0)} s` };
  });
  return chosen(name, copies);
}
