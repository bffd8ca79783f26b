// Measures kernels one by one, as the engine runs them, against the device's ceilings and, where some are installed,
// peers in the same process: ours, theirs, ours, theirs …, so that all see the same machine. Knows no operation.
// Short kernels are repeated within a submission, because waiting for one takes up to a millisecond; their data may
// then come from caches, as it does in a model where the previous kernel has just written it. On request the other
// kernels that could compute a case take turns, too.

import { openTriedDevice } from "../src/engine/device/trial.js";
import { BufferPlan } from "../src/engine/gpu/buffer-plan.js";
import type { CommandList } from "../src/engine/gpu/command-list.js";
import type { Dispatch } from "../src/engine/gpu/commands.js";
import { type Device, reasonOf } from "../src/engine/gpu/device.js";
import { Readback } from "../src/engine/gpu/readback.js";
import { Recorder } from "../src/engine/gpu/recorder.js";
import type { Tensor } from "../src/engine/gpu/tensor.js";
import { choiceKey, chooseVariant, variantName, type Workload } from "../src/engine/ops/variants.js";
import { tuningOf } from "../src/engine/tuning/choices.js";
import { MadeInputs } from "../src/engine/tuning/inputs.js";
import { relativeL2 } from "../src/engine/tuning/trials.js";
import { DaybreakError } from "../src/errors.js";
import { createGpu } from "../src/node/dawn.js";
import { deviceKey, tuneMode } from "../src/node/tune.js";
import { readTuning } from "../src/node/tuning-cache.js";
import { type BenchCase, benchCases, caseDtype, caseName, estimateFlops, recordCase } from "./cases.js";
import { type Ceilings, measureCeilings } from "./ceilings.js";
import { type DeviceBlock, describeDevice, spread } from "./machine.js";
import { openPeers, type Peer, type PeerRun, type PeerWork } from "./peers/peer.js";

export type BenchKernelsOptions = {
  /** Timed runs of a case; at least 5 for a claim. */
  runs: number;
  /** Skips cases whose warm-up and timed runs would take ours longer than this, seconds. */
  maxSeconds: number;
  /** Only cases whose name, model or dtype holds this text. */
  filter?: string;
  /** Also runs the other kernels that can compute a case on this device. */
  variants?: boolean;
  /** Also runs the peers that are installed in `peersFrom`, by default where this package lies. */
  peers?: boolean;
  peersFrom?: string;
  /** Is told of every case before it runs. */
  onCase?: (name: string) => void;
  signal?: AbortSignal;
};

/** Times are of one run of the operation; `ratio` is the peer's median over ours: above 1, ours is faster. */
export type PeerResult = { ms_min: number; ms_median: number; ratio: number };

export type KernelResult = {
  /** The kernel files that ran. */
  kernel: string;
  case: string;
  dtype: string;
  /** The kernel files with their tunables. */
  variant: string;
  ms_min: number;
  ms_median: number;
  /** Of the fastest run. */
  gflops: number;
  gbps: number;
  /** `gflops` or `gbps` over its ceiling, whichever is nearer to it; above 1 where caches serve what was counted as memory. */
  share_of_ceiling: number;
  peers: Record<string, PeerResult>;
};

/**
 * What is printed and kept. Every case, named by `case` and `dtype`, stands in it at most once; with `variants` its other
 * kernels follow it, each with a `variant` of its own and no peers.
 */
export type BenchKernelsResult = { device: DeviceBlock; ceilings: Ceilings; results: KernelResult[] };

/** What there is to say besides. */
export type BenchKernelsNotes = {
  /** What did not run, and why: cases, and peers or other kernels of cases. */
  skipped: { case: string; dtype: string; peer?: string; reason: string }[];
  /** Cases in which all that a peer has for them, or another kernel, differs from ours: one of the two is wrong. */
  differences: { case: string; dtype: string; peer: string; relative_error: number }[];
};

/** The largest relative L2 error between a peer's result and ours that still counts as the same work. */
const sameWork = 1e-3;
/** What a kernel is taken to reach of the ceilings when its time is estimated. */
const expectedShare = 0.3;
/** A peer may take this many times as long as we may before it is skipped. */
const peerPatience = 5;
/** A sample should take this long, so that waiting and clocks do not show. */
const sample_ms = 60;
const mostRepetitions = 200;

/**
 * Runs the benchmark. Errors: those of the device; `request.option_invalid` for a filter that matches nothing, or where
 * `peers` is asked for and no peer is installed.
 */
export async function benchKernels(
  options: BenchKernelsOptions,
): Promise<{ result: BenchKernelsResult; notes: BenchKernelsNotes }> {
  const { filter = "", signal, onCase } = options;
  const chosen = benchCases.filter((c) => fullName(c).toLowerCase().includes(filter.toLowerCase()));
  if (chosen.length === 0) {
    const names = [...new Set(benchCases.map((c) => c.shape.op))].join(", ");
    throw new DaybreakError(
      "request.option_invalid",
      `no case matches --filter "${filter}": expected a part of a case's name, such as ${names}, klein or f16`,
    );
  }
  const gpu = await createGpu();
  const described = await describeDevice(gpu);
  const tuning = await keptChoices(gpu);
  const device = await openTriedDevice({ gpu, tuning, signal });
  const peers: Peer[] = [];
  try {
    if (options.peers) peers.push(...(await openPeers(gpu, options.peersFrom)));
    for (const { versions } of peers) Object.assign(described.versions, versions);
    const ceilings = await measureCeilings(device);
    const result: BenchKernelsResult = { device: described, ceilings, results: [] };
    const notes: BenchKernelsNotes = { skipped: [], differences: [] };
    for (const benchCase of chosen) {
      signal?.throwIfAborted();
      onCase?.(fullName(benchCase));
      await measureCase({ device, tuning, result, notes, options, peers }, benchCase);
    }
    // Once more, because whatever else the machine did at the beginning lowered the ceilings.
    const again = await measureCeilings(device);
    const gflops = Math.max(ceilings.gflops, again.gflops);
    const gbps = Math.max(ceilings.gbps, again.gbps);
    result.ceilings = { gflops, gbps };
    for (const row of result.results) row.share_of_ceiling = Math.max(row.gflops / gflops, row.gbps / gbps);
    return { result, notes };
  } finally {
    for (const peer of peers) await peer.close();
    device.close();
  }
}

/** What `daybreak tune` has measured counts, as it does for whoever draws. */
async function keptChoices(gpu: GPU): Promise<Map<string, string>> {
  const key = tuneMode() === "off" ? undefined : await deviceKey(gpu);
  const kept = key === undefined ? undefined : await readTuning(key);
  return new Map(tuningOf(kept?.workloads ?? {}));
}

function fullName(benchCase: BenchCase): string {
  return `${benchCase.model}: ${caseName(benchCase)} ${caseDtype(benchCase)}`;
}

type Context = {
  device: Device;
  /** The device's choices: what is set here is taken for what is recorded next. */
  tuning: Map<string, string>;
  result: BenchKernelsResult;
  notes: BenchKernelsNotes;
  options: BenchKernelsOptions;
  peers: readonly Peer[];
};

/** A peer that is ready for a case, and how long its runs took, milliseconds. */
type Rival = { name: string; run: PeerRun; times: number[] };
/** The same for another kernel. */
type Alternative = { recorded: Recorded; times: number[] };

/** Adds one case to the results or to what was skipped. */
async function measureCase(context: Context, benchCase: BenchCase): Promise<void> {
  const { device, result, notes, options } = context;
  const { runs, maxSeconds, signal } = options;
  const inputs = new MadeInputs(device);
  const lists: Recorded[] = [];
  const rivals: Rival[] = [];
  const alternatives: Alternative[] = [];
  const where = { case: caseName(benchCase), dtype: caseDtype(benchCase) };
  const skip = (reason: string) => void notes.skipped.push({ ...where, reason });
  try {
    const tooLong = (run_ms: number) => (run_ms * (runs + 1)) / 1000 > maxSeconds;
    const estimate_ms = estimateFlops(benchCase) / (result.ceilings.gflops * expectedShare * 1e6);
    if (tooLong(estimate_ms)) return skip(`about ${seconds(estimate_ms)} a run by estimate`);
    const once = await prepareCase(device, inputs, benchCase, 1);
    lists.push(once);
    // The first run compiles, which counts only where it is beyond everything that compiling takes.
    const first_ms = await timeRun(device, once.list);
    if (first_ms > maxSeconds * 500) return skip(`the first run took ${seconds(first_ms)}`);
    const single_ms = await timeRun(device, once.list);
    if (tooLong(single_ms)) return skip(`a run took ${seconds(single_ms)}`);
    const repetitions = Math.max(1, Math.min(mostRepetitions, Math.round(sample_ms / single_ms)));
    const timed = repetitions > 1 ? await prepareCase(device, inputs, benchCase, repetitions) : once;
    if (timed !== once) {
      lists.push(timed);
      await timeRun(device, timed.list);
    }
    for (const peer of context.peers) {
      const run = await openCheckedPeer(context, peer, benchCase, repetitions, once.result);
      if (run) rivals.push({ name: peer.name, run, times: [] });
    }
    if (options.variants) {
      const others = await otherKernels(context, benchCase, { inputs, repetitions, ours: once, lists });
      alternatives.push(...others.map((recorded) => ({ recorded, times: [] })));
    }
    const ours: number[] = [];
    for (let i = 0; i < runs; i++) {
      signal?.throwIfAborted();
      ours.push((await timeRun(device, timed.list)) / repetitions);
      for (const { recorded, times } of alternatives) times.push((await timeRun(device, recorded.list)) / repetitions);
      for (const { run, times } of rivals) times.push((await time(run.run)) / repetitions);
    }
    const { median } = spread(ours);
    const peers = Object.fromEntries(rivals.map(({ name, times }) => [name, peerResult(times, median)]));
    result.results.push(kernelResult(once, where, ours, peers));
    for (const { recorded, times } of alternatives) result.results.push(kernelResult(recorded, where, times, {}));
  } catch (error) {
    // What this device has no room for is skipped like what takes too long; it survives both.
    const isTooLarge =
      error instanceof DaybreakError &&
      (error.code === "device.limit_exceeded" || (error.code === "device.out_of_memory" && isAlive(device)));
    if (!isTooLarge) throw error;
    skip(error.message);
  } finally {
    for (const { run } of rivals) await run.close();
    for (const recorded of lists) recorded.close();
    inputs.close();
  }
}

/** The share of the ceilings is left to the end, when they are known. */
function kernelResult(
  { stems, variant, flops, bytes }: Recorded,
  where: { case: string; dtype: string },
  times: readonly number[],
  peers: KernelResult["peers"],
): KernelResult {
  const { min, median } = spread(times);
  return {
    ...{ kernel: stems, ...where, variant, ms_min: min, ms_median: median },
    ...{ gflops: flops / min / 1e6, gbps: bytes / min / 1e6, share_of_ceiling: 0, peers },
  };
}

function peerResult(times: readonly number[], ourMedian: number): PeerResult {
  const { min, median } = spread(times);
  return { ms_min: min, ms_median: median, ratio: median / ourMedian };
}

/**
 * The case by every other kernel that runs and computes the same in a reasonable time, warmed up; they are in `lists`, too.
 * A case of several operations with a choice each has none.
 */
async function otherKernels(
  { device, tuning, notes, options }: Context,
  benchCase: BenchCase,
  { inputs, repetitions, ours, lists }: OtherKernelsOptions,
): Promise<Recorded[]> {
  const [workload] = ours.workloads;
  if (!workload || ours.workloads.length > 1) return [];
  const key = choiceKey(device, workload);
  const chosen = tuning.get(key);
  const own = variantName(chooseVariant(new Recorder(device), workload));
  const patience_ms = (1000 * options.maxSeconds) / options.runs;
  const others: Recorded[] = [];
  const readback = new Readback(device);
  try {
    const expected = await readback.f32(ours.result);
    for (const variant of workload.variants(device).filter((listed) => variantName(listed) !== own)) {
      tuning.set(key, variantName(variant));
      const where = { case: caseName(benchCase), dtype: caseDtype(benchCase), peer: variantName(variant) };
      const skip = (reason: string) => notes.skipped.push({ ...where, reason });
      let recorded: Recorded;
      try {
        recorded = await prepareCase(device, inputs, benchCase, repetitions);
      } catch (error) {
        if (!isAlive(device)) throw error;
        skip(reasonOf(error)); // it does not compile, or has no room
        continue;
      }
      lists.push(recorded);
      await timeRun(device, recorded.list); // warms up
      const relative_error = relativeL2(await readback.f32(recorded.result), expected);
      const run_ms = await timeRun(device, recorded.list);
      if (relative_error > sameWork) notes.differences.push({ ...where, relative_error });
      else if (run_ms > patience_ms) skip(`a run took ${seconds(run_ms)}`);
      else others.push(recorded);
    }
    return others;
  } finally {
    readback.close();
    if (chosen === undefined) tuning.delete(key);
    else tuning.set(key, chosen);
  }
}

type OtherKernelsOptions = {
  inputs: MadeInputs;
  repetitions: number;
  ours: Recorded;
  lists: Recorded[];
};

/**
 * The first of a peer's ways that runs and agrees with our `result`, warmed up. Those that do not are noted as skipped;
 * if all that ran disagree, that is a difference.
 */
async function openCheckedPeer(
  { device, notes, options }: Context,
  peer: Peer,
  benchCase: BenchCase,
  repetitions: number,
  result: Tensor,
): Promise<PeerRun | undefined> {
  const works = peer.works(benchCase, repetitions);
  if (works.length === 0) return undefined;
  const patience_ms = (1000 * peerPatience * options.maxSeconds) / options.runs;
  const where = { case: caseName(benchCase), dtype: caseDtype(benchCase), peer: peer.name };
  const readback = new Readback(device);
  let closest: number | undefined;
  try {
    const ours = await readback.f32(result);
    for (const make of works) {
      const work = make();
      const tried = await tryPeer(work);
      const skip = (reason: string) => notes.skipped.push({ ...where, reason: `${work.operators}: ${reason}` });
      if (typeof tried === "string") {
        skip(tried);
        continue;
      }
      const { run, values, run_ms } = tried;
      const relative_error = relativeL2(values, ours);
      const isSame = relative_error <= sameWork;
      if (isSame && run_ms <= patience_ms) return run;
      await run.close();
      if (isSame) {
        skip(`a run took ${seconds(run_ms)}`);
        return undefined;
      }
      closest = Math.min(closest ?? relative_error, relative_error);
      const took = seconds(run_ms / repetitions);
      skip(`${relative_error.toPrecision(2)} off our result (relative L2), so its ${took} do not count`);
    }
  } finally {
    readback.close();
  }
  if (closest !== undefined) notes.differences.push({ ...where, relative_error: closest });
  return undefined;
}

type TriedPeer = { run: PeerRun; values: Float32Array; run_ms: number };

/** Opened work, its result and its second run's time, or in a line why there is none. */
async function tryPeer(work: PeerWork): Promise<TriedPeer | string> {
  let run: PeerRun | undefined;
  try {
    run = await work.open();
    const values = await run.result();
    return { run, values, run_ms: await time(run.run) };
  } catch (error) {
    await run?.close();
    return String((error as Error).message)
      .replace(/\s+/g, " ")
      .trim()
      .slice(0, 300);
  }
}

type Recorded = {
  list: CommandList;
  result: Tensor;
  /** Of one repetition. */
  workloads: readonly Workload[];
  flops: number;
  bytes: number;
  /** "group_norm_statistics + group_norm_combine", and the same with tunables. */
  stems: string;
  variant: string;
  close(): void;
};

/** Remembers what was recorded: for which workloads, which kernels, with which tunables, moving how many bytes. */
class CountingRecorder extends Recorder {
  readonly dispatches: Dispatch[] = [];
  readonly workloads: Workload[] = [];

  constructor(device: Device) {
    super(device, { onWorkload: (workload: Workload) => void this.workloads.push(workload) });
  }

  override dispatch(dispatch: Dispatch): void {
    this.dispatches.push(dispatch);
    super.dispatch(dispatch);
  }
}

/** Records a case `repetitions` times into one list, ready to run; the last result is kept. */
async function prepareCase(
  device: Device,
  inputs: MadeInputs,
  benchCase: BenchCase,
  repetitions: number,
): Promise<Recorded> {
  const plan = new BufferPlan();
  const recorder = new CountingRecorder(device);
  let result = recordCase(recorder, inputs, benchCase);
  const [own, workloads] = [recorder.dispatches.slice(), recorder.workloads.slice()];
  for (let i = 1; i < repetitions; i++) result = recordCase(recorder, inputs, benchCase);
  recorder.keep(result);
  const list = recorder.finish(caseName(benchCase), plan);
  const close = () => {
    list.close();
    plan.close(device);
  };
  try {
    await device.allocating(caseName(benchCase), () => plan.realize(device));
    await list.prepare(device);
  } catch (error) {
    close();
    throw error;
  }
  const sum = (of: (dispatch: Dispatch) => number) => own.reduce((total, dispatch) => total + of(dispatch), 0);
  const names = (of: (dispatch: Dispatch) => string) => [...new Set(own.map(of))].join(" + ");
  const variant = names(({ kernel: { layout, options } }) =>
    [layout.stem, ...Object.entries(options.tunables ?? {}).map(([name, value]) => `${name}=${value}`)].join(" "),
  );
  return {
    ...{ list, result, workloads, flops: sum((d) => d.flops), bytes: sum((d) => d.bytes) },
    ...{ stems: names((d) => d.kernel.layout.stem), variant, close },
  };
}

async function timeRun(device: Device, list: CommandList): Promise<number> {
  return time(async () => {
    await list.submit();
    await device.idle();
  });
}

async function time(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

function isAlive(device: Device): boolean {
  try {
    device.check();
    return true;
  } catch {
    return false;
  }
}

function seconds(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
