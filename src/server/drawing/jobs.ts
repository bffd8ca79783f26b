// The queue in front of the engine: one job at a time, bounded, fair between callers. Knows nothing of pictures.
// Callers take turns, so that one who sends thirty requests does not keep another's single one waiting for all of them.

import { ApiError } from "../http/api-error.js";

export type JobQueueOptions = {
  /** Most waiting jobs in all; default 64. */
  maxQueued?: number;
  /** Most waiting jobs of one caller; default 32. */
  maxQueuedPerCaller?: number;
};

export type JobOptions = {
  /** Whose job it is; undefined: everybody's, bounded only by the whole queue. */
  caller: string | undefined;
  /** Takes a waiting job out of the queue, and tells a running one. */
  signal: AbortSignal;
  /** Memory of its reference images, which it holds until it is over. */
  bytes: number;
};

/** A job that was accepted. `isWaiting`: others come first. `result` settles as the work does. */
export type Job<T> = { isWaiting: boolean; result: Promise<T> };

type Waiting = { start: () => void; cancel: (reason: unknown) => void };

/** Memory of the reference images of all jobs together. */
const maxReferenceBytes = 512 * 1024 * 1024;

/** Weight of the newest job in the running mean of durations. */
const smoothing = 0.3;
const firstGuess_ms = 5000;

/** Runs jobs one after the other. */
export class JobQueue {
  readonly #maxQueued: number;
  readonly #maxQueuedPerCaller: number;
  /** Waiting jobs by caller; the first caller in the map is the next to be served. */
  readonly #waiting = new Map<string | undefined, Waiting[]>();
  #running = 0;
  #isClosed = false;
  #mean_ms = firstGuess_ms;
  #referenceBytes = 0;
  #whenIdle: (() => void)[] = [];
  /** One for every job that waits or runs. */
  readonly #stops = new Set<AbortController>();

  constructor({ maxQueued = 64, maxQueuedPerCaller = 32 }: JobQueueOptions = {}) {
    this.#maxQueued = maxQueued;
    this.#maxQueuedPerCaller = maxQueuedPerCaller;
  }

  get running(): number {
    return this.#running;
  }

  get queued(): number {
    let count = 0;
    for (const jobs of this.#waiting.values()) count += jobs.length;
    return count;
  }

  /** Throws what {@link submit} would throw now, for checks before costly preparations. */
  checkRoom(caller: string | undefined): void {
    if (this.#isClosed) {
      throw new ApiError("overloaded", "shutting_down", "the server is shutting down and takes no new jobs");
    }
    if (this.#running === 0) return;
    const own = caller === undefined ? 0 : (this.#waiting.get(caller)?.length ?? 0);
    const isOwnFull = own >= this.#maxQueuedPerCaller;
    if (!isOwnFull && this.queued < this.#maxQueued) return;
    const message = isOwnFull
      ? `this key has ${own} jobs waiting, at most ${this.#maxQueuedPerCaller} are taken: wait for one to finish`
      : `${this.queued} jobs are waiting, at most ${this.#maxQueued} are taken: try again later`;
    throw new ApiError("too_many_requests", "queue_full", message, { headers: this.#retryAfter() });
  }

  /** When all that waits now will have been drawn, in seconds. */
  #retryAfter(): Record<string, string> {
    return { "retry-after": String(Math.max(1, Math.ceil((this.#mean_ms * (this.queued + 1)) / 1000))) };
  }

  /**
   * Queues work, or starts it at once if nothing else runs. Work watches the signal it gets: the job's own, which
   * {@link stop} aborts as well.
   * Throws ApiError: `too_many_requests` when the queue is full, `overloaded` when the waiting jobs
   * hold too much memory, and after {@link drain}.
   */
  submit<T>(work: (signal: AbortSignal) => Promise<T>, { caller, signal, bytes }: JobOptions): Job<T> {
    this.checkRoom(caller);
    if (this.#running > 0 && this.#referenceBytes + bytes > maxReferenceBytes) {
      const message =
        "the reference images of waiting jobs fill the memory that is set aside for them: try again later";
      throw new ApiError("overloaded", "too_many_bytes", message, { headers: this.#retryAfter() });
    }
    this.#referenceBytes += bytes;
    const stop = new AbortController();
    const pass = () => stop.abort(signal.reason);
    signal.addEventListener("abort", pass);
    if (signal.aborted) pass();
    this.#stops.add(stop);
    const isWaiting = this.#running > 0;
    const turn = isWaiting ? this.#wait(caller, stop.signal) : Promise.resolve();
    if (!isWaiting) this.#running++;
    const result = turn
      .then(() => this.#run(() => work(stop.signal)))
      .catch((error: unknown) => {
        throw stop.signal.reason instanceof ApiError ? stop.signal.reason : error;
      })
      .finally(() => {
        signal.removeEventListener("abort", pass);
        this.#stops.delete(stop);
        this.#referenceBytes -= bytes;
      });
    return { isWaiting, result };
  }

  /** Ends whatever waits or runs with this error. Resolves when it has ended. */
  async stop(reason: ApiError): Promise<void> {
    for (const stop of this.#stops) stop.abort(reason);
    await this.drain();
  }

  /** Resolves when nothing runs or waits. From then on, and already now, new jobs are refused. */
  async drain(): Promise<void> {
    this.#isClosed = true;
    if (this.#running > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  #wait(caller: string | undefined, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const jobs = this.#waiting.get(caller) ?? [];
      const job: Waiting = {
        start: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
        cancel: reject,
      };
      const onAbort = () => {
        jobs.splice(jobs.indexOf(job), 1);
        if (jobs.length === 0 && this.#waiting.get(caller) === jobs) this.#waiting.delete(caller);
        job.cancel(signal.reason);
      };
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      jobs.push(job);
      this.#waiting.set(caller, jobs);
    });
  }

  async #run<T>(work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      const result = await work();
      // Failures are often quick and would make the estimate too rosy.
      this.#mean_ms += smoothing * (performance.now() - started - this.#mean_ms);
      return result;
    } finally {
      this.#running--;
      this.#startNext();
    }
  }

  #startNext(): void {
    const [next] = this.#waiting;
    if (!next) {
      for (const resolve of this.#whenIdle.splice(0)) resolve();
      return;
    }
    const [caller, jobs] = next;
    const job = jobs.shift() as Waiting;
    // To the end of the line of callers, if anything is left of this one's.
    this.#waiting.delete(caller);
    if (jobs.length > 0) this.#waiting.set(caller, jobs);
    this.#running++;
    job.start();
  }
}
