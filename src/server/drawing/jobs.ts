// The queue in front of the engine: one job at a time, bounded, fair between callers. Knows nothing of pictures.
// Callers share the engine's time, not turns: next is a job of the caller who has had the least of it, and a long job lets
// others in where it can be put off. So neither thirty requests nor one video keeps another's picture waiting for long.

import { ApiError } from "../http/api-error.js";

export type JobQueueOptions = {
  /** Most waiting jobs in all; default 64. */
  maxQueued?: number;
  /** Most waiting jobs of one caller; default 32. */
  maxQueuedPerCaller?: number;
  /** Milliseconds that never go back; by default the platform's clock. */
  now?: () => number;
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

/** How a running job lets others in. */
export type Turn = {
  /** Whether somebody waits who has had less of the engine. */
  isWanted(): boolean;
  /** Lets whoever that is go first; fulfilled when it is this job's turn again. Rejects when the job is cancelled. */
  pass(): Promise<void>;
};

type Work<T> = (signal: AbortSignal, turn: Turn) => Promise<T>;
type Waiting = { start: () => void; cancel: (reason: unknown) => void };

/** Memory of the reference images of all jobs together. */
const maxReferenceBytes = 512 * 1024 * 1024;

/** Weight of the newest job in the running mean of durations. */
const smoothing = 0.3;
const firstGuess_ms = 5000;
/** A job runs for so long before it is put off: changing from one picture to another costs time as well. */
const quantum_ms = 500;

/** Runs jobs one after the other. */
export class JobQueue {
  readonly #maxQueued: number;
  readonly #maxQueuedPerCaller: number;
  readonly #now: () => number;
  /** Waiting jobs by caller; of callers who have had the same, the first in the map is the next to be served. */
  readonly #waiting = new Map<string | undefined, Waiting[]>();
  /** Milliseconds of the engine that callers have had since it was last idle. */
  readonly #had_ms = new Map<string | undefined, number>();
  /** The running job's caller, and since when its time is not counted yet. */
  #current: { caller: string | undefined; since: number } | undefined;
  #running = 0;
  #isClosed = false;
  #mean_ms = firstGuess_ms;
  #referenceBytes = 0;
  #whenIdle: (() => void)[] = [];
  /** One for every job that waits or runs. */
  readonly #stops = new Set<AbortController>();

  constructor({ maxQueued = 64, maxQueuedPerCaller = 32, now = () => performance.now() }: JobQueueOptions = {}) {
    this.#maxQueued = maxQueued;
    this.#maxQueuedPerCaller = maxQueuedPerCaller;
    this.#now = now;
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
  submit<T>(work: Work<T>, { caller, signal, bytes }: JobOptions): Job<T> {
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
    this.#arrive(caller);
    const turn = isWaiting ? this.#wait(caller, stop.signal) : Promise.resolve(this.#begin(caller));
    const result = turn
      .then(() => this.#run(caller, stop.signal, work))
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

  /** @param isPutOff whether it has run before: then it comes before its caller's others */
  #wait(caller: string | undefined, signal: AbortSignal, isPutOff = false): Promise<void> {
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
      if (isPutOff) jobs.unshift(job);
      else jobs.push(job);
      this.#waiting.set(caller, jobs);
    });
  }

  async #run<T>(caller: string | undefined, signal: AbortSignal, work: Work<T>): Promise<T> {
    let began = this.#now();
    let ran_ms = 0;
    let isRunning = true;
    const turn: Turn = {
      isWanted: () => this.#now() - began >= quantum_ms && this.#isWanted(caller),
      pass: async () => {
        if (!this.#isWanted(caller)) return;
        ran_ms += this.#now() - began;
        isRunning = false;
        const again = this.#wait(caller, signal, true);
        this.#end();
        await again;
        isRunning = true;
        began = this.#now();
      },
    };
    try {
      const result = await work(signal, turn);
      // Failures are often quick and would make the estimate too rosy.
      this.#mean_ms += smoothing * (ran_ms + this.#now() - began - this.#mean_ms);
      return result;
    } finally {
      if (isRunning) this.#end();
    }
  }

  #begin(caller: string | undefined): void {
    this.#running++;
    this.#current = { caller, since: this.#now() };
  }

  #end(): void {
    this.#count();
    this.#current = undefined;
    this.#running--;
    this.#startNext();
  }

  /** Counts the running job's time up to now. */
  #count(): void {
    if (!this.#current) return;
    const { caller, since } = this.#current;
    const now = this.#now();
    this.#had_ms.set(caller, this.#had(caller) + now - since);
    this.#current.since = now;
  }

  #had(caller: string | undefined): number {
    return this.#had_ms.get(caller) ?? 0;
  }

  /** Whoever has neither a waiting nor a running job saves nothing up: it has had as much as the least of the others. */
  #arrive(caller: string | undefined): void {
    this.#count();
    const active = [...this.#waiting.keys(), ...(this.#current ? [this.#current.caller] : [])];
    if (active.length === 0 || active.includes(caller)) return;
    this.#had_ms.set(caller, Math.max(this.#had(caller), Math.min(...active.map((other) => this.#had(other)))));
  }

  #isWanted(caller: string | undefined): boolean {
    this.#count();
    const next = this.#next();
    return next !== undefined && next.caller !== caller && this.#had(next.caller) < this.#had(caller);
  }

  /** Of those that wait, the caller who has had the least. */
  #next(): { caller: string | undefined; jobs: Waiting[] } | undefined {
    let next: { caller: string | undefined; jobs: Waiting[] } | undefined;
    for (const [caller, jobs] of this.#waiting) {
      if (!next || this.#had(caller) < this.#had(next.caller)) next = { caller, jobs };
    }
    return next;
  }

  #startNext(): void {
    const next = this.#next();
    if (!next) {
      this.#had_ms.clear();
      for (const resolve of this.#whenIdle.splice(0)) resolve();
      return;
    }
    const { caller, jobs } = next;
    const job = jobs.shift() as Waiting;
    // To the end of the line of callers, if anything is left of this one's.
    this.#waiting.delete(caller);
    if (jobs.length > 0) this.#waiting.set(caller, jobs);
    this.#begin(caller);
    job.start();
  }
}
