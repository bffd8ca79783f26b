// Choices of kernels: which variant of a workload is taken by what was measured, and what a choice holds for. Plain
// data; measures nothing.

import { matrixConfigsOf, shownLimits } from "../gpu/device.js";
import type { Tuning } from "../gpu/facts.js";
import { kernelSources } from "../gpu/kernel-sources.js";
import { sha256 } from "../sha256.js";
import type { Candidate } from "./trials.js";

/** The choice for one workload, and what it rests on. Times are of the whole workload, milliseconds. */
export type TunedWorkload = {
  /** Of the workload. */
  name: string;
  /** What is taken. */
  variant: string;
  /** Its time; null if none was measured: then it is the built-in choice. */
  ms: number | null;
  /** The built-in choice's time. */
  builtin_ms: number | null;
  /** Why nothing was measured, if that may go better another time. */
  unmeasured?: string;
  /** In the order of the workload's variants, the built-in choice first. */
  candidates: Candidate[];
};

/** Choices by `choiceKey`, for one device; plain data. */
export type TunedWorkloads = Record<string, TunedWorkload>;

/** A variant must be this much faster than the built-in one: less is noise, and would change from day to day. */
const leastGain = 0.03;
/** Why a workload was not measured, if the time was up. */
export const noTime = "no time was left";

/**
 * The choice among candidates, the built-in one first: the fastest if it is faster than the built-in one by
 * {@link leastGain} in its best run and faster in its median one, else the built-in one.
 */
export function chosen(name: string, candidates: readonly Candidate[]): TunedWorkload {
  const builtin = candidates[0] as Candidate;
  const timed = candidates.filter(({ ms, error }) => ms !== null && error === undefined);
  const best = timed.toSorted((a, b) => (a.ms as number) - (b.ms as number))[0];
  const isFaster =
    best !== undefined &&
    (!timed.includes(builtin) ||
      ((best.ms as number) <= (1 - leastGain) * (builtin.ms as number) &&
        (best.median_ms as number) < (builtin.median_ms as number)));
  // A built-in choice that is wrong is avoided even if there was no time to measure another.
  const sound = candidates.find(({ error }) => error === undefined) ?? builtin;
  const taken = isFaster ? best : timed.includes(builtin) ? builtin : sound;
  return { name, variant: taken.variant, ms: taken.ms, builtin_ms: builtin.ms, candidates: [...candidates] };
}

/** Choices in the form that the device takes. */
export function tuningOf(workloads: TunedWorkloads): Tuning {
  return new Map(Object.entries(workloads).map(([key, { variant }]) => [key, variant]));
}

/**
 * What choices hold for: a hash of the adapter, of whatever else decides how kernels run there (`environment`:
 * versions, switches), and of the kernels.
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
