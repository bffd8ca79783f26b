// Measures kernels one by one, as the engine runs them, against the device's ceilings and, where one is installed, a
// peer in the same process: ours, peer, ours, peer …, so that both see the same machine. Knows no operation.
// Short kernels are repeated within a submission, because waiting for one takes up to a millisecond; their data may
// then come from caches, as it does in a model where the previous kernel has just written it.

import { BufferPlan, type CommandList, type Dispatch, Recorder } from "../src/engine/gpu/commands.js";
import { type Device, openDevice } from "../src/engine/gpu/device.js";
import { Readback } from "../src/engine/gpu/readback.js";
import type { Tensor } from "../src/engine/gpu/tensor.js";
import { DaybreakError } from "../src/errors.js";
import { createGpu } from "../src/node/dawn.js";
import { type BenchCase, benchCases, caseDtype, caseName, estimateFlops, recordCase } from "./cases.js";
import { type Ceilings, measureCeilings } from "./ceilings.js";
import { BenchInputs } from "./data.js";
import { describeMachine, spread } from "./machine.js";
import { type PeerModel, peerModels } from "./peers/models.js";
import { loadOnnxruntime, type Onnxruntime, openPeerRun, type PeerRun } from "./peers/onnxruntime.js";

export type BenchKernelsOptions = {
  /** Timed runs of a case; at least 5 for a claim. */
  runs: number;
  /** Skips cases whose warm-up and timed runs would take ours longer than this, seconds. */
  maxSeconds: number;
  /** Only cases whose name, model or dtype holds this text. */
  filter?: string;
  /** Also runs ONNX Runtime's WebGPU provider, from `peersFrom` or from where this package lies. */
  peers?: boolean;
  peersFrom?: string;
  /** Is told of every case before it runs. */
  onCase?: (name: string) => void;
  signal?: AbortSignal;
};

/** Times are of one run of the operation; `ratio` is the peer's median over ours: above 1, ours is faster. */
export type PeerResult = {
  ms_min: number;
  ms_median: number;
  ratio: number;
  /** ONNX operators that did the work. */
  operators: string;
  /** Of the peer's result against ours, relative L2. */
  relative_error: number;
};

export type KernelResult = {
  kernel: string;
  case: string;
  model: string;
  dtype: string;
  /** The kernel files that ran, with their tunables. */
  variant: string;
  ms_min: number;
  ms_median: number;
  /** From the device's own clock, where its ticks are fine enough for this kernel. */
  device_ms?: number;
  gflops: number;
  gbps: number;
  /** `gflops` or `gbps` over its ceiling, whichever is nearer to it; above 1 where caches serve what was counted as memory. */
  share_of_ceiling: number;
  peers: Record<string, PeerResult>;
};

export type BenchKernelsResult = {
  device: Record<string, string | number>;
  ceilings: Ceilings;
  results: KernelResult[];
  /** What did not run, and why: cases, and peers of cases. */
  skipped: { case: string; dtype: string; peer?: string; reason: string }[];
  /** Cases in which all that a peer has for them differs from ours: one of the two is wrong. */
  differences: { case: string; dtype: string; peer: string; relative_error: number }[];
};

/** The largest relative L2 error between a peer's result and ours that still counts as the same work. */
const sameWork = 1e-3;
const peerName = "onnxruntime-webgpu";
/** What a kernel is taken to reach of the ceilings when its time is estimated. */
const expectedShare = 0.3;
/** A peer may take this many times as long as we may before it is skipped. */
const peerPatience = 5;
/** A sample should take this long, so that waiting and clocks do not show. */
const sample_ms = 60;
const mostRepetitions = 200;
/** Dawn rounds timestamps to 2^16 ns; a dispatch must be this long for the rounding to stay below two per cent. */
const finestDispatch_ms = 3.3;

/**
 * Runs the benchmark. Errors: those of the device; `request.option_invalid` for a filter that matches nothing, or where
 * `peers` is asked for and no peer is installed.
 */
export async function benchKernels(options: BenchKernelsOptions): Promise<BenchKernelsResult> {
  const { filter = "", signal, onCase } = options;
  const chosen = benchCases.filter((c) => fullName(c).toLowerCase().includes(filter.toLowerCase()));
  if (chosen.length === 0) {
    const names = [...new Set(benchCases.map((c) => c.shape.op))].join(", ");
    throw new DaybreakError(
      "request.option_invalid",
      `no case matches --filter "${filter}": expected a part of a case's name, such as ${names}, klein or f16`,
    );
  }
  // Our device first: the driver that it activates is the one that the peer then finds.
  const device = await openDevice({ gpu: await createGpu() });
  try {
    const ort = options.peers ? loadOnnxruntime(options.peersFrom) : undefined;
    const { vendor, architecture, description } = device.info;
    const name = description || [vendor, architecture].join(" ");
    const machine = { ...describeMachine(name), ...(ort && { onnxruntime: ort.env.versions.node ?? "unknown" }) };
    const ceilings = await measureCeilings(device);
    const bench: BenchKernelsResult = { device: machine, ceilings, results: [], skipped: [], differences: [] };
    for (const benchCase of chosen) {
      signal?.throwIfAborted();
      onCase?.(fullName(benchCase));
      await measureCase({ device, bench, options, ort }, benchCase);
    }
    // Once more, because whatever else the machine did at the beginning lowered the ceilings.
    const again = await measureCeilings(device);
    bench.ceilings = { gflops: Math.max(ceilings.gflops, again.gflops), gbps: Math.max(ceilings.gbps, again.gbps) };
    for (const result of bench.results) {
      const { gflops, gbps } = bench.ceilings;
      result.share_of_ceiling = Math.max(result.gflops / gflops, result.gbps / gbps);
    }
    return bench;
  } finally {
    device.close();
  }
}

function fullName(benchCase: BenchCase): string {
  return `${benchCase.model}: ${caseName(benchCase)} ${caseDtype(benchCase)}`;
}

type Context = {
  device: Device;
  bench: BenchKernelsResult;
  options: BenchKernelsOptions;
  ort: Onnxruntime | undefined;
};

/** Adds one case to the results or to what was skipped. */
async function measureCase(context: Context, benchCase: BenchCase): Promise<void> {
  const { device, bench, options } = context;
  const { runs, maxSeconds, signal } = options;
  const inputs = new BenchInputs(device);
  const lists: Recorded[] = [];
  const skip = (reason: string) => {
    bench.skipped.push({ case: caseName(benchCase), dtype: caseDtype(benchCase), reason });
  };
  let peer: PeerRun | undefined;
  try {
    const tooLong = (run_ms: number) => (run_ms * (runs + 1)) / 1000 > maxSeconds;
    const estimate_ms = estimateFlops(benchCase) / (bench.ceilings.gflops * expectedShare * 1e6);
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
    const checked = await openCheckedPeer(context, benchCase, repetitions, once.result);
    peer = checked?.peer;
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let i = 0; i < runs; i++) {
      signal?.throwIfAborted();
      ours.push((await timeRun(device, timed.list)) / repetitions);
      if (peer) theirs.push((await time(peer.run)) / repetitions);
    }
    const { min, median } = spread(ours);
    const { stems, variant, flops, bytes } = once;
    const device_ms = await deviceTime(device, timed.list, min, once.dispatches, repetitions);
    const result: KernelResult = {
      ...{ kernel: stems, case: caseName(benchCase), model: benchCase.model, dtype: caseDtype(benchCase), variant },
      ...{ ms_min: min, ms_median: median, ...(device_ms !== undefined && { device_ms }) },
      ...{ gflops: flops / min / 1e6, gbps: bytes / min / 1e6, share_of_ceiling: 0, peers: {} },
    };
    if (checked) {
      const spent = spread(theirs);
      const { operators, relative_error } = checked;
      const times = { ms_min: spent.min, ms_median: spent.median, ratio: spent.median / median };
      result.peers[peerName] = { ...times, operators, relative_error };
    }
    bench.results.push(result);
  } catch (error) {
    // What this device has no room for is skipped like what takes too long; it survives both.
    const isTooLarge =
      error instanceof DaybreakError &&
      (error.code === "device.limit_exceeded" || (error.code === "device.out_of_memory" && isAlive(device)));
    if (!isTooLarge) throw error;
    skip(error.message);
  } finally {
    await peer?.close();
    for (const recorded of lists) recorded.close();
    inputs.close();
  }
}

/**
 * The first of the peer's models that runs and agrees with our `result`, warmed up. Those that do not are noted as
 * skipped; if all that ran disagree, that is a difference.
 */
async function openCheckedPeer(
  { device, bench, options, ort }: Context,
  benchCase: BenchCase,
  repetitions: number,
  result: Tensor,
): Promise<{ peer: PeerRun; operators: string; relative_error: number } | undefined> {
  if (!ort) return undefined;
  const patience_ms = (1000 * peerPatience * options.maxSeconds) / options.runs;
  const where = { case: caseName(benchCase), dtype: caseDtype(benchCase), peer: peerName };
  const readback = new Readback(device);
  let closest: number | undefined;
  try {
    const ours = await readback.f32(result);
    for (const make of peerModels(benchCase, repetitions)) {
      const model = make();
      const { operators } = model;
      const tried = await tryPeer(ort, model);
      const skip = (reason: string) => bench.skipped.push({ ...where, reason: `${operators}: ${reason}` });
      if (typeof tried === "string") {
        skip(tried);
        continue;
      }
      const { peer, values, run_ms } = tried;
      const relative_error = relativeError(values, ours);
      const isSame = relative_error <= sameWork;
      if (isSame && run_ms <= patience_ms) return { peer, operators, relative_error };
      await peer.close();
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
  if (closest !== undefined) bench.differences.push({ ...where, relative_error: closest });
  return undefined;
}

type TriedPeer = { peer: PeerRun; values: Float32Array; run_ms: number };

/** A peer's session, its result and its second run's time, or in a line why there is none. */
async function tryPeer(ort: Onnxruntime, model: PeerModel): Promise<TriedPeer | string> {
  let peer: PeerRun | undefined;
  try {
    peer = await openPeerRun(ort, model);
    const values = await peer.result();
    return { peer, values, run_ms: await time(peer.run) };
  } catch (error) {
    await peer?.close();
    return String((error as Error).message)
      .replace(/\s+/g, " ")
      .trim()
      .slice(0, 300);
  }
}

/** ‖a − b‖ / ‖b‖; infinite where the lengths differ or a value is no finite number. */
export function relativeError(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let power = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    power += b[i]! ** 2;
  }
  const error = Math.sqrt(difference / (power || 1));
  return Number.isFinite(error) ? error : Number.POSITIVE_INFINITY;
}

type Recorded = {
  list: CommandList;
  result: Tensor;
  /** Of one repetition. */
  flops: number;
  bytes: number;
  dispatches: number;
  /** "group_norm_statistics + group_norm_combine", and the same with tunables. */
  stems: string;
  variant: string;
  close(): void;
};

/** Remembers what was recorded: which kernels, with which tunables, moving how many bytes. */
class CountingRecorder extends Recorder {
  readonly dispatches: Dispatch[] = [];

  override dispatch(dispatch: Dispatch): void {
    this.dispatches.push(dispatch);
    super.dispatch(dispatch);
  }
}

/** Records a case `repetitions` times into one list, ready to run; the last result is kept. */
async function prepareCase(
  device: Device,
  inputs: BenchInputs,
  benchCase: BenchCase,
  repetitions: number,
): Promise<Recorded> {
  const plan = new BufferPlan();
  const recorder = new CountingRecorder(device);
  let result = recordCase(recorder, inputs, benchCase);
  const own = recorder.dispatches.slice();
  for (let i = 1; i < repetitions; i++) result = recordCase(recorder, inputs, benchCase);
  recorder.keep(result);
  const list = recorder.finish(caseName(benchCase), plan);
  const close = () => {
    list.close();
    plan.close(device);
  };
  try {
    await device.allocating(caseName(benchCase), () => plan.realize(device));
    await list.prepare();
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
    ...{ list, result, flops: sum((d) => d.flops), bytes: sum((d) => d.bytes), dispatches: own.length },
    ...{ stems: names((d) => d.kernel.layout.stem), variant, close },
  };
}

async function timeRun(device: Device, list: CommandList): Promise<number> {
  return time(async () => {
    list.submit();
    await device.idle();
  });
}

async function time(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** Milliseconds of one repetition by timestamps, or undefined where the device has none or its ticks are too coarse. */
async function deviceTime(
  device: Device,
  list: CommandList,
  run_ms: number,
  dispatches: number,
  repetitions: number,
): Promise<number | undefined> {
  if (!device.features.has("timestamp-query") || run_ms / dispatches < finestDispatch_ms) return undefined;
  const timings = await list.profile();
  return timings.reduce((total, { ms }) => total + ms, 0) / repetitions;
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
