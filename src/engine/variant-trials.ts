// Measures the variants of one operation against each other: first whether they compute the same, then how long they
// take, in turns. Chooses nothing. Small samples come first, so that a slow variant trips no watchdog; buffers are filled
// with NaN before each check, so that a variant which computes nothing cannot pass with another's result.

import { assert } from "../errors.js";
import { BufferPlan, type CommandList, Recorder } from "./gpu/commands.js";
import { type Device, oneLine, reasonOf } from "./gpu/device.js";
import { Readback } from "./gpu/readback.js";
import { byteLength, type Tensor } from "./gpu/tensor.js";
import { type Problem, type Variant, variantName } from "./ops/variants.js";
import { MadeInputs } from "./sample-inputs.js";

/** What was found out about a variant. */
export type Candidate = {
  variant: string;
  /** Least and median time of the whole problem, milliseconds, reckoned from a sample; null if it was not timed. */
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
  /** Variant → why it is not to be run. */
  excluded?: ReadonlyMap<string, string>;
  /** Is told the variant that is about to run: if the device fails, it was that one. */
  onVariant?: (name: string) => void;
  signal?: AbortSignal;
};

/** Largest relative L2 error against the reference variant, by operands; squared, the bounds of the kernels' own tests. */
const errorBound = { f32: 1e-5, f16: 1e-3 } as const;
/** A timed sample should take this long, so that waiting for it does not show. */
const sample_ms = 20;
const mostRepeats = 100;
/** Runs of each variant, the first of them to warm up. */
const rounds = 6;
/** Fewer say too little. */
const fewestRounds = 3;
/**
 * A variant that takes so many times as long as the best is given up; after one run, which may have been disturbed, only
 * if it takes much longer.
 */
const hopeless = 1.5;
const hopelessAtFirst = 4;

/**
 * Tries the variants of a problem: checks all against the portable one, then times those that are right, in turns. Where
 * the time runs out, variants stay without times.
 * Errors: those that end the device; what `signal` was aborted with. Whatever else goes wrong is the variant's.
 */
export async function tryVariants(device: Device, problem: Problem, options: TrialOptions): Promise<Candidate[]> {
  const variants = problem.variants(device);
  const candidates = variants.map((variant): Candidate => {
    return { variant: variantName(variant), ms: null, median_ms: null };
  });
  const trial: Trial = { device, problem, options, variants, candidates };
  const checked = clamped((problem.units * device.limits.dispatchFlops) / 10 / problem.flops, 1, problem.units);
  const small = new Samples(device, problem, checked);
  try {
    const sound = await checkVariants(trial, small);
    if (!options.isUntimed && sound.length >= 2) await timeVariants(trial, small, sound);
  } finally {
    small.close();
  }
  return candidates;
}

/** Milliseconds of a problem's built-in choice, from runs of about `total_ms` on end; undefined if it does not run. */
export async function timeBuiltin(device: Device, problem: Problem, total_ms: number): Promise<number | undefined> {
  const variants = problem.variants(device);
  const candidates = variants.map((variant) => ({ variant: variantName(variant), ms: null, median_ms: null }));
  const trial = { device, problem, options: { deadline: Number.POSITIVE_INFINITY }, variants, candidates };
  const samples = new Samples(device, problem, problem.units);
  try {
    return (await repeatsFor(trial, samples, 0, total_ms))?.ms;
  } finally {
    samples.close();
  }
}

type Trial = {
  device: Device;
  problem: Problem;
  options: TrialOptions;
  variants: readonly Variant[];
  /** In the order of the variants. */
  candidates: Candidate[];
};

/** Variants that compute what the reference does, all of them unless the time runs out; errors go to the candidates. */
async function checkVariants(trial: Trial, samples: Samples): Promise<number[]> {
  const { device, problem, options, variants, candidates } = trial;
  const { deadline, excluded, signal } = options;
  const readback = new Readback(device);
  const sound = new Set<number>();
  const portable = variants.findIndex(({ stem }) => stem === problem.portable);
  assert(portable >= 0, `${problem.name}: none of its variants is of the kernel ${problem.portable}`);
  let expected: Float32Array | undefined;
  try {
    for (const i of new Set([portable, ...variants.keys()])) {
      signal?.throwIfAborted();
      if (performance.now() > deadline) return [];
      const candidate = candidates[i] as Candidate;
      candidate.error = excluded?.get(candidate.variant);
      if (candidate.error !== undefined) continue;
      const values = await attempt(trial, i, () => samples.values(variants[i] as Variant, readback));
      if (!values) continue;
      if (i === portable) expected = values;
      candidate.error = difference(values, expected, errorBound[problem.operands]);
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
  let error = 0;
  let power = 0;
  for (let i = 0; i < expected.length; i++) {
    const reference = expected[i] as number;
    error += ((values[i] as number) - reference) ** 2;
    power += reference ** 2;
  }
  const relative = Math.sqrt(error / power);
  if (relative <= bound) return undefined;
  return `its result is off by ${relative.toPrecision(2)}, the bound is ${bound}`;
}

/** Times the sound variants in turns on samples as large as the time allows. */
async function timeVariants(trial: Trial, small: Samples, sound: readonly number[]): Promise<void> {
  const { device, problem, options, variants, candidates } = trial;
  const { deadline, signal } = options;
  const first = sound[0] as number;
  const small_ms = (await repeatsFor(trial, small, first, sample_ms / 4))?.ms;
  if (small_ms === undefined) return;
  const { submissionFlops } = device.limits;
  const most = Math.max(small.units, Math.min(problem.units, (problem.units * submissionFlops) / problem.flops));
  const units = clamped((small.units * sample_ms) / small_ms, small.units, most);
  const samples = units === small.units ? small : new Samples(device, problem, units);
  const times = new Map<number, number[]>(sound.map((i) => [i, []]));
  const least = (i: number) => Math.min(...(times.get(i) as number[]));
  let racing = [...sound];
  try {
    const repeats = (await repeatsFor(trial, samples, first, sample_ms))?.repeats;
    if (repeats === undefined) return;
    for (let round = 0; round < rounds; round++) {
      for (const i of racing) {
        signal?.throwIfAborted();
        if (performance.now() > deadline) return;
        const ms = await attempt(trial, i, () => samples.time(variants[i] as Variant, round === 0 ? 1 : repeats));
        if (ms !== undefined) times.get(i)?.push(ms);
      }
      racing = racing.filter((i) => (candidates[i] as Candidate).error === undefined);
      const best = Math.min(...racing.map(least));
      // The built-in choice runs to the end: everything else is measured by it.
      racing = racing.filter((i) => i === 0 || least(i) <= (round === 0 ? hopelessAtFirst : hopeless) * best);
    }
  } finally {
    if (samples !== small) samples.close();
    const done = Math.max(...[...times.values()].map((values) => values.length));
    for (const [i, values] of times) {
      // A variant that was given up has fewer times than the others, which say enough about it.
      if (done < fewestRounds || values.length === 0) continue;
      const whole = problem.units / units;
      const sorted = values.toSorted((a, b) => a - b);
      const candidate = candidates[i] as Candidate;
      candidate.ms = whole * (sorted[0] as number);
      candidate.median_ms = whole * (sorted[Math.floor(sorted.length / 2)] as number);
    }
  }
}

/** How often a sample has to be run on end to take about `total_ms`, and how long one run takes then. */
async function repeatsFor(
  trial: Trial,
  samples: Samples,
  variant: number,
  total_ms: number,
): Promise<{ repeats: number; ms: number } | undefined> {
  let repeats = 1;
  for (;;) {
    const ms = await attempt(trial, variant, () => samples.time(trial.variants[variant] as Variant, repeats));
    if (ms === undefined) return undefined;
    if (repeats * ms >= total_ms / 2 || repeats === mostRepeats) {
      return { repeats: clamped(total_ms / ms, 1, mostRepeats), ms };
    }
    // Waiting takes a millisecond or so by itself: of a short run nothing else may be seen.
    repeats = Math.min(mostRepeats, 8 * repeats);
  }
}

/** Samples of one size for all variants: the same inputs, and results in the same buffers, one after the other. */
class Samples {
  readonly units: number;
  readonly #device: Device;
  readonly #problem: Problem;
  readonly #inputs: MadeInputs;
  readonly #places = new BufferPlan();
  readonly #prepared = new Map<Variant, { list: CommandList; result: Tensor }>();

  constructor(device: Device, problem: Problem, units: number) {
    this.#device = device;
    this.#problem = problem;
    this.units = units;
    this.#inputs = new MadeInputs(device);
  }

  /** What a variant computes. */
  async values(variant: Variant, readback: Readback): Promise<Float32Array> {
    const { list, result } = await this.#prepare(variant);
    const buffer = result.storage.buffer as GPUBuffer;
    this.#device.gpu.queue.writeBuffer(buffer, 0, new Uint32Array(byteLength(result) / 4).fill(0xffff_ffff));
    await list.submit();
    return readback.f32(result);
  }

  /** Milliseconds of one run, of several on end. */
  async time(variant: Variant, repeats: number): Promise<number> {
    const { list } = await this.#prepare(variant);
    const started = performance.now();
    for (let i = 0; i < repeats; i++) await list.submit();
    await this.#device.idle();
    return (performance.now() - started) / repeats;
  }

  close(): void {
    for (const { list } of this.#prepared.values()) list.close();
    this.#prepared.clear();
    this.#places.close(this.#device);
    this.#inputs.close();
  }

  async #prepare(variant: Variant): Promise<{ list: CommandList; result: Tensor }> {
    const known = this.#prepared.get(variant);
    if (known) return known;
    const recorder = new Recorder(this.#device);
    const result = this.#problem.sample(recorder, this.#inputs, this.units, variant);
    const list = recorder.finish(this.#problem.name, this.#places);
    const prepared = { list, result };
    this.#prepared.set(variant, prepared);
    this.#places.realize(this.#device);
    await list.prepare();
    // Inputs are written and memory is found by now: none of it counts as the variant's time.
    await this.#device.idle();
    return prepared;
  }
}

/**
 * Runs a variant. What goes wrong without ending the device becomes the candidate's error, and nothing is returned; the
 * device's own errors outside of calls are caught as well.
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
  try {
    result = await work();
  } catch (error) {
    candidate.error = reasonOf(error);
  }
  const reported = await device.settled(Promise.all(filters.map(() => device.gpu.popErrorScope())));
  const failure = reported.find((error) => error !== null);
  if (failure) candidate.error = oneLine(failure.message);
  return candidate.error === undefined ? result : undefined;
}

function clamped(value: number, least: number, most: number): number {
  return Math.max(least, Math.min(Math.round(value), Math.round(most)));
}
