// Measures the variants of one operation against each other: first whether they compute the same, then how long they
// take, in turns. Chooses nothing. Samples are whole tiles of every variant, because a part of a tile takes as long as
// a whole one. Small samples come first, so that a slow variant trips no watchdog; buffers are filled with NaN before
// each check, so that a variant which computes nothing cannot pass with another's result.

import { assert, DaybreakError } from "../../errors.js";
import { BufferPlan } from "../gpu/buffer-plan.js";
import type { CommandList } from "../gpu/command-list.js";
import { type Device, oneLine, reasonOf } from "../gpu/device.js";
import type { DeviceFacts } from "../gpu/facts.js";
import { Readback } from "../gpu/readback.js";
import { Recorder } from "../gpu/recorder.js";
import { byteLength, type Tensor } from "../gpu/tensor.js";
import { type Extents, type Variant, variantName, type Workload } from "../ops/variants.js";
import { MadeInputs } from "./inputs.js";

/** What was found out about a variant. */
export type Candidate = {
  variant: string;
  /** Least and median time of the whole workload, milliseconds, reckoned from a sample; null if it was not timed. */
  ms: number | null;
  median_ms: number | null;
  /** Why it is never chosen. */
  error?: string;
};

export type TrialOptions = {
  /** As performance.now() says it; after it no further run begins. */
  deadline: number;
  /** Only whether they are right, not how fast. */
  isUntimed?: boolean;
  /** Is told the variant that is about to run: if the device fails, it was that one. */
  onVariant?: (name: string) => void;
  signal?: AbortSignal;
};

/** Largest relative L2 error against the reference variant, by operands; squared, the bounds of the kernels' own tests. */
const errorBound = { f32: 1e-5, f16: 1e-3 } as const;
/**
 * A timed sample should take this long, so that the millisecond or so of waiting for it hardly shows. Longer samples
 * would leave operations unmeasured where the time is short.
 */
const sample_ms = 20;
/** Samples are enlarged to this size at most: a GPU that is fast enough for more may have no memory for it. */
const mostSampleBytes = 256 * 1024 ** 2;
const mostRepeats = 100;
/**
 * Tiles of a timed sample, if the workload has so many: fewer would leave cores idle, and more of them with large
 * tiles.
 */
const fewestTiles = { gpu: 64, processor: 16 } as const;
/** Runs of each variant, the first of them to warm up. */
const rounds = 6;
/** Fewer say too little. */
const fewestRounds = 3;
/**
 * A variant is given up if it takes so many times as long as the best one. One run may have been disturbed: after the
 * first the bound is higher.
 */
const hopeless = 1.5;
const hopelessAtFirst = 4;

/** The variants of a workload before they are tried; those that are not to be run have their errors. */
export function candidatesOf(
  facts: DeviceFacts,
  workload: Workload,
  excluded: ReadonlyMap<string, string> = new Map(),
): Candidate[] {
  return workload.variants(facts).map((listed) => {
    const variant = variantName(listed);
    return { variant, ms: null, median_ms: null, error: excluded.get(variant) };
  });
}

/**
 * Tries the variants of a workload: checks all against the portable one, then times those that are right, in turns.
 * What is found out goes to `candidates` at once, so that it counts even if this does not end. Variants stay without
 * times where the time runs out.
 * Errors: those that end the device; `device.out_of_memory` for samples that it has no room for; what `signal` was aborted
 * with. Whatever else goes wrong is the variant's.
 */
export async function tryVariants(
  device: Device,
  workload: Workload,
  candidates: Candidate[],
  options: TrialOptions,
): Promise<void> {
  const variants = workload.variants(device);
  const tile = commonTile(workload, variants);
  const samples = new Samples(device, workload, checkedPart(workload.extents, tile));
  const trial: Trial = { device, workload, options, variants, candidates, tile, samples };
  try {
    const sound = await checkVariants(trial);
    if (!options.isUntimed && sound.length >= 2) await timeVariants(trial, sound);
  } finally {
    trial.samples.close();
  }
}

/**
 * Milliseconds of a workload's built-in choice, in runs of about {@link sample_ms}; undefined if it does not run.
 * Errors: those of {@link tryVariants}.
 */
export async function timeBuiltin(device: Device, workload: Workload): Promise<number | undefined> {
  const [variants, candidates] = [workload.variants(device), candidatesOf(device, workload)];
  const { extents: tile } = workload;
  const samples = new Samples(device, workload, tile);
  const options = { deadline: Number.POSITIVE_INFINITY };
  try {
    return (await repeatsFor({ device, workload, options, variants, candidates, tile, samples }, 0))?.ms;
  } finally {
    samples.close();
  }
}

/** Whether a trial ended because the device, which goes on, has no memory for its samples. */
export function isShortOfMemory(device: Device, error: unknown): boolean {
  return !device.failure && error instanceof DaybreakError && error.code === "device.out_of_memory";
}

type Trial = {
  device: Device;
  workload: Workload;
  options: TrialOptions;
  variants: readonly Variant[];
  /** In the order of the variants. */
  candidates: Candidate[];
  /** Whole tiles of every variant, or all that there is. */
  tile: Extents;
  /** Small ones at first; they are closed when larger ones replace them. */
  samples: Samples;
};

function commonTile({ extents }: Workload, variants: readonly Variant[]): Extents {
  const rows = variants.reduce((all, { tileRows }) => leastCommonMultiple(all, tileRows), 1);
  const cols = variants.reduce((all, { tileCols }) => leastCommonMultiple(all, tileCols), 1);
  return { rows: Math.min(rows, extents.rows), cols: Math.min(cols, extents.cols) };
}

function leastCommonMultiple(a: number, b: number): number {
  let [divisor, rest] = [a, b];
  while (rest > 0) [divisor, rest] = [rest, divisor % rest];
  return (a / divisor) * b;
}

/**
 * Two tiles either way, to find out a variant that is right in its first tile only, and the workload's own remainder.
 */
function checkedPart({ rows, cols }: Extents, tile: Extents): Extents {
  return {
    rows: Math.min(rows, 2 * tile.rows + (rows % tile.rows)),
    cols: Math.min(cols, 2 * tile.cols + (cols % tile.cols)),
  };
}

/**
 * So many cells in whole tiles. Columns are cut first, rows last: workgroups run in that order, so a dispatch begins
 * with all rows of a few columns.
 */
function timedPart({ rows, cols }: Extents, tile: Extents, cells: number): Extents {
  const some = Math.min(cols, Math.ceil(cells / rows / tile.cols) * tile.cols);
  if (some > tile.cols) return { rows, cols: some };
  return { rows: Math.min(rows, Math.ceil(cells / some / tile.rows) * tile.rows), cols: some };
}

function cellsOf({ rows, cols }: Extents): number {
  return rows * cols;
}

/** Variants that compute what the reference does, all of them unless the time runs out; errors go to the candidates. */
async function checkVariants(trial: Trial): Promise<number[]> {
  const { device, workload, options, variants, candidates, samples } = trial;
  const { deadline, signal } = options;
  const readback = new Readback(device);
  const sound = new Set<number>();
  const portable = variants.findIndex(({ stem }) => stem === workload.portable);
  assert(portable >= 0, `${workload.name}: none of its variants is of the kernel ${workload.portable}`);
  let expected: Float32Array | undefined;
  try {
    for (const i of new Set([portable, ...variants.keys()])) {
      signal?.throwIfAborted();
      if (performance.now() > deadline) return [];
      const candidate = candidates[i] as Candidate;
      if (candidate.error !== undefined) continue;
      const values = await attempt(trial, i, () => samples.values(variants[i] as Variant, readback));
      if (!values) continue;
      if (i === portable) expected = values;
      candidate.error = difference(values, expected, errorBound[workload.operands]);
      if (candidate.error === undefined) sound.add(i);
    }
  } finally {
    readback.close();
  }
  return [...sound].sort((a, b) => a - b);
}

/** What is wrong with the values, if anything is. */
function difference(values: Float32Array, expected: Float32Array | undefined, bound: number): string | undefined {
  if (!expected) return "the portable kernel, against which it is checked, failed";
  const relative = relativeL2(values, expected);
  if (relative <= bound) return undefined;
  const off = Number.isFinite(relative) ? relative.toPrecision(2) : "NaN";
  return `its result is off by ${off}, the bound is ${bound}`;
}

/** ‖a − b‖ / ‖b‖; infinite where the lengths differ or a value is no finite number. */
export function relativeL2(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let power = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    power += b[i]! ** 2;
  }
  const ratio = Math.sqrt(difference / (power || 1));
  return Number.isFinite(ratio) ? ratio : Number.POSITIVE_INFINITY;
}

/** Times the sound variants in turns. */
async function timeVariants(trial: Trial, sound: readonly number[]): Promise<void> {
  const { workload, options, variants, candidates } = trial;
  const { deadline, signal } = options;
  let repeats: number | undefined;
  // If a variant fails on larger samples, the next one sizes them.
  for (const i of sound) repeats ??= await growSamples(trial, i);
  if (repeats === undefined) return;
  const { samples } = trial;
  let racing = sound.filter((i) => (candidates[i] as Candidate).error === undefined);
  const times = new Map<number, number[]>(racing.map((i) => [i, []]));
  const least = (i: number) => Math.min(...(times.get(i) as number[]));
  try {
    for (let round = 0; round < rounds; round++) {
      for (const i of racing) {
        signal?.throwIfAborted();
        if (performance.now() > deadline) return;
        const ms = await attempt(trial, i, () => samples.time(variants[i] as Variant, round === 0 ? 1 : repeats));
        if (ms !== undefined) times.get(i)?.push(ms);
      }
      racing = racing.filter((i) => (candidates[i] as Candidate).error === undefined);
      const best = Math.min(...racing.map(least));
      // The built-in choice runs to the end: all others are compared with it.
      racing = racing.filter((i) => i === 0 || least(i) <= (round === 0 ? hopelessAtFirst : hopeless) * best);
    }
  } finally {
    const done = Math.max(...[...times.values()].map((values) => values.length));
    const whole = cellsOf(workload.extents) / cellsOf(samples.part);
    for (const [i, values] of times) {
      // A variant that was given up has fewer times than the others; they say enough about it.
      if (done < fewestRounds || values.length === 0) continue;
      // The first run touches new memory.
      const sorted = (values.length > 1 ? values.slice(1) : values).sort((a, b) => a - b);
      const candidate = candidates[i] as Candidate;
      candidate.ms = whole * (sorted[0] as number);
      candidate.median_ms = whole * (sorted[Math.floor(sorted.length / 2)] as number);
    }
  }
}

/**
 * Enlarges the samples until one run of a variant takes about {@link sample_ms}, or they take as much memory as they may.
 * It goes by steps, because a few tiles leave most of a GPU idle and say little about many. Returns how often to run
 * samples that take less time; undefined if the variant fails or the time runs out.
 */
async function growSamples(trial: Trial, variant: number): Promise<number | undefined> {
  const { device, workload, options, tile } = trial;
  const fewest = cellsOf(tile) * fewestTiles[device.isSoftware ? "processor" : "gpu"];
  const resize = (part: Extents) => {
    trial.samples.close();
    trial.samples = new Samples(device, workload, part);
  };
  let last: { part: Extents; repeats: number } | undefined;
  for (;;) {
    options.signal?.throwIfAborted();
    if (performance.now() > options.deadline) return undefined;
    let timed: Awaited<ReturnType<typeof repeatsFor>>;
    try {
      timed = await repeatsFor(trial, variant);
    } catch (error) {
      if (!last || !isShortOfMemory(device, error)) throw error;
      resize(last.part);
      return last.repeats;
    }
    if (!timed) return undefined;
    const before = cellsOf(trial.samples.part);
    const wanted = Math.max(fewest, (before * sample_ms) / timed.ms);
    const most = (before * mostSampleBytes) / trial.samples.byteLength;
    const part = timedPart(workload.extents, tile, Math.min(wanted, most));
    if (cellsOf(part) < 1.5 * before) return timed.repeats;
    last = { part: trial.samples.part, repeats: timed.repeats };
    resize(part);
  }
}

/** How often the samples have to run on end to take about {@link sample_ms}, and how long one run takes then. */
async function repeatsFor(trial: Trial, variant: number): Promise<{ repeats: number; ms: number } | undefined> {
  const { samples, variants } = trial;
  const time = (repeats: number) => attempt(trial, variant, () => samples.time(variants[variant] as Variant, repeats));
  let ms = await time(1); // touches new memory
  for (let repeats = 1; ms !== undefined; repeats = Math.min(mostRepeats, 8 * repeats)) {
    ms = await time(repeats);
    // Waiting takes a millisecond or so by itself, which may be all that is seen of a short run.
    if (ms !== undefined && (repeats * ms >= sample_ms / 2 || repeats === mostRepeats)) {
      return { repeats: Math.max(1, Math.min(mostRepeats, Math.round(sample_ms / ms))), ms };
    }
  }
  return undefined;
}

type Prepared = { list: CommandList; result: Tensor };

/** Samples of one size for all variants: the same inputs, and results in the same buffers, one after the other. */
class Samples {
  readonly part: Extents;
  readonly #device: Device;
  readonly #workload: Workload;
  readonly #inputs: MadeInputs;
  readonly #places = new BufferPlan();
  /** By repeats and variant. */
  readonly #prepared = new Map<string, Prepared>();
  /** What was allocated before. */
  readonly #others: number;

  constructor(device: Device, workload: Workload, part: Extents) {
    this.#device = device;
    this.#others = device.allocatedBytes;
    this.#workload = workload;
    this.part = part;
    this.#inputs = new MadeInputs(device);
  }

  /** Of inputs, results and what else was needed so far. */
  get byteLength(): number {
    return this.#device.allocatedBytes - this.#others;
  }

  /** What a variant computes. */
  async values(variant: Variant, readback: Readback): Promise<Float32Array> {
    const { list, result } = await this.#prepare(variant, 1);
    const buffer = result.storage.buffer as GPUBuffer;
    this.#device.gpu.queue.writeBuffer(buffer, 0, new Uint32Array(byteLength(result) / 4).fill(0xffff_ffff));
    await list.submit();
    return readback.f32(result);
  }

  /**
   * Milliseconds of one of several runs on end. They are one list, because submitting each would take the processor
   * longer.
   */
  async time(variant: Variant, repeats: number): Promise<number> {
    const { list } = await this.#prepare(variant, repeats);
    const started = performance.now();
    await list.submit();
    await this.#device.idle();
    return (performance.now() - started) / repeats;
  }

  close(): void {
    for (const { list } of this.#prepared.values()) list.close();
    this.#prepared.clear();
    this.#places.close(this.#device);
    this.#inputs.close();
  }

  async #prepare(variant: Variant, repeats: number): Promise<Prepared> {
    const key = `${repeats} ${variantName(variant)}`;
    const known = this.#prepared.get(key);
    if (known) return known;
    const recorder = new Recorder(this.#device);
    const sample = () => this.#workload.sample(recorder, this.#inputs, this.part, variant);
    let result = sample();
    for (let i = 1; i < repeats; i++) result = sample();
    const list = recorder.finish(this.#workload.name, this.#places);
    const prepared = { list, result };
    this.#prepared.set(key, prepared);
    this.#places.realize(this.#device);
    await list.prepare(this.#device);
    // Inputs are written and memory is found now, so that neither counts as the variant's time.
    await this.#device.idle();
    return prepared;
  }
}

/**
 * Runs a variant. What goes wrong without ending the device becomes the candidate's error, and nothing is returned;
 * errors that the device reports outside of calls are caught as well. Lack of memory is thrown instead, because nearly
 * all that is allocated here is a sample's inputs and results.
 */
async function attempt<T>(
  { device, options, candidates }: Trial,
  variant: number,
  work: () => Promise<T>,
): Promise<T | undefined> {
  const candidate = candidates[variant] as Candidate;
  options.onVariant?.(candidate.variant);
  const filters: GPUErrorFilter[] = ["validation", "internal", "out-of-memory"];
  for (const filter of filters) device.gpu.pushErrorScope(filter);
  let result: T | undefined;
  let failure: unknown;
  try {
    result = await work();
  } catch (error) {
    failure = error;
  }
  // The innermost scope ends first.
  const [memory, ...reported] = await device.settled(Promise.all(filters.map(() => device.gpu.popErrorScope())));
  const isTooLarge = failure instanceof DaybreakError && failure.code === "device.limit_exceeded";
  if (memory || isTooLarge) {
    const why = memory ? oneLine(memory.message) : reasonOf(failure);
    throw new DaybreakError("device.out_of_memory", `the device has no memory for samples (${why})`);
  }
  const report = reported.find((error) => error !== null);
  if (!report && failure === undefined) return result;
  candidate.error = report ? oneLine(report.message) : reasonOf(failure);
  return undefined;
}

/**
 * Waits for `work` until `time` by performance.now(), or until `signal` is aborted; false if the work has not ended.
 */
export async function endsBy(time: number, work: Promise<unknown>, signal?: AbortSignal): Promise<boolean> {
  let stop = () => {};
  const stopped = new Promise<boolean>((resolve) => {
    stop = () => resolve(false);
  });
  const timer = setTimeout(stop, Math.min(time - performance.now(), longestTimer_ms));
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  try {
    return await Promise.race([work.then(() => true), stopped]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

/** The most that setTimeout takes; a longer one would be over at once. */
const longestTimer_ms = 2 ** 31 - 1;

/** Closes a device once the trial on it has ended: closing blocks the thread until everything is compiled. */
export function closeAfter(trial: Promise<unknown>, device: Device): void {
  const close = () => device.close();
  trial.then(close, close);
}
