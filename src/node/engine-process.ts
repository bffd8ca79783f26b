// An engine in a process of its own, which is replaced when it crashes: the caller keeps running whatever a driver does.
// Owns the order of requests and the life of the processes, one at a time; engine-connection.ts has one of them. A process
// that crashed is replaced at once, then after 1, 2, 4 … 60 seconds as long as nothing was drawn in between.

import { setTimeout as sleep } from "node:timers/promises";
import type { EngineInfo } from "../engine/engine.js";
import { checkNames, type NamesOf } from "../engine/options.js";
import type { ProgressEvent } from "../engine/request.js";
import { Turns } from "../engine/turns.js";
import { DaybreakError, engineClosed, requestCancelled, unlessAborted } from "../errors.js";
import { type ConnectionOptions, EngineConnection, type ProcessHooks } from "./engine-connection.js";
import { type EngineMemory, type ProcessRequest, type ProcessResult, probeRequest } from "./engine-messages.js";

export type EngineProcessOptions = ConnectionOptions & {
  /** A process has failed for this reason and is about to be replaced, each time that it happens. */
  onRestart?: (reason: DaybreakError) => void;
  /** Aborted while the first process starts: it is ended. Later it means nothing. */
  signal?: AbortSignal;
};

const optionNames: NamesOf<EngineProcessOptions> = {
  ...{ model: true, precision: true, memoryBudgetBytes: true, tune: true, expected: true, tuneSeconds: true },
  ...{ onProgress: true, onLog: true, execPath: true, silenceLimit_ms: true, onRestart: true, signal: true },
};

export type ProbeResult = {
  ok: boolean;
  /** When, as Date.now() says it. */
  at_ms: number;
  error?: DaybreakError;
};

/**
 * `starting`: requests wait. `silent`: nothing is heard of the process, which is replaced if that goes on; requests wait.
 * `failed`: they are refused, while the start is tried again and again.
 */
export type EngineProcessState = "starting" | "ready" | "silent" | "failed";

/** After so many failures in a row requests no longer wait. */
const failuresUntilRefusal = 3;
const longestDelay_ms = 60_000;

/** Draws pictures in a process of its own. Import it from `daybreak/node`. */
export class EngineProcess {
  readonly #options: EngineProcessOptions;
  readonly #life = new AbortController();
  /** The process that draws: pending while it is starting, rejected while starting fails. */
  #connection: Promise<EngineConnection>;
  #current: EngineConnection | undefined;
  #state: EngineProcessState = "starting";
  #reason: DaybreakError | undefined;
  #restarts = 0;
  /** Failed processes since the last picture. */
  #failures = 0;
  #info: EngineInfo | undefined;
  /** Of the weights that were loaded first: all processes have to have the same. */
  #fingerprint: string | null = null;
  #lastProbe: ProbeResult | undefined;
  readonly #turns = new Turns();
  #replacing: Promise<void> = Promise.resolve();

  private constructor(options: EngineProcessOptions) {
    this.#options = options;
    this.#connection = openFirst(options, this.#life.signal);
  }

  /**
   * Starts the process and loads the model.
   * Errors, after the first attempt: those of `openEngine` (`model.*`, `device.*` …), `engine.crashed`; `engine.closed` if
   * `signal` is aborted.
   */
  static async open(options: EngineProcessOptions = {}): Promise<EngineProcess> {
    checkNames("EngineProcess.open", options, optionNames);
    const engine = new EngineProcess(options);
    const giveUp = () => void engine.close();
    options.signal?.addEventListener("abort", giveUp);
    if (options.signal?.aborted) giveUp();
    try {
      engine.#adopt(await engine.#connection);
    } finally {
      options.signal?.removeEventListener("abort", giveUp);
    }
    return engine;
  }

  /** Of the process that was last loaded; `deviceBytes` as it was then, see {@link memory}. */
  get info(): EngineInfo {
    return { ...(this.#current?.info ?? (this.#info as EngineInfo)), fingerprint: this.#fingerprint };
  }

  get state(): EngineProcessState {
    return this.#state === "ready" && this.#current?.isSilent ? "silent" : this.#state;
  }

  /** Why the state is `failed`. */
  get reason(): DaybreakError | undefined {
    return this.#state === "failed" ? this.#reason : undefined;
  }

  /** How many processes were started in the place of one that failed. */
  get restarts(): number {
    return this.#restarts;
  }

  /** Process id of the engine, while it is up. */
  get pid(): number | undefined {
    return this.#current?.pid;
  }

  /**
   * Whether the device worked when it was last tried: by {@link probe}, by a request, or by a start, which runs a kernel and
   * checks its result.
   */
  get lastProbe(): ProbeResult {
    return this.#lastProbe as ProbeResult;
  }

  /**
   * Generates the images of one request, after those that were made before it. While the process is being replaced, it
   * waits.
   * Errors: those of `Engine.generate`; `engine.crashed` if the process ends meanwhile; `engine.unavailable`, caused by
   * the reason, while the state is `failed`; `engine.closed`; what a hook throws, after which the request is cancelled.
   */
  generate(request: ProcessRequest, hooks: ProcessHooks): Promise<ProcessResult> {
    return this.#turns.take(
      (turn) => this.#until(turn, hooks.signal),
      () => this.#generate(request, hooks),
    );
  }

  /** Draws a tiny picture, in its turn, which proves that the device works. Errors: as {@link generate}. */
  async probe(): Promise<void> {
    try {
      await this.generate(probeRequest, { onImage: () => undefined });
    } catch (error) {
      if (error instanceof DaybreakError) this.#lastProbe = { ok: false, at_ms: Date.now(), error };
      throw error;
    }
  }

  /** What the engine takes, as it last told; nothing while no process is up. */
  async memory(): Promise<EngineMemory> {
    return this.#current?.memory ?? { deviceBytes: 0, weightBytes: 0, rssBytes: 0 };
  }

  /** Ends the process. A request that is running, and those that wait, fail with `engine.closed`. Twice is as good as once. */
  async close(): Promise<void> {
    this.#life.abort();
    await this.#current?.close();
    await this.#replacing;
  }

  async #generate(request: ProcessRequest, hooks: ProcessHooks): Promise<ProcessResult> {
    for (;;) {
      const connection = await this.#until(this.#connection, hooks.signal);
      let hasStarted = false;
      const onStart = () => {
        hasStarted = true;
        hooks.onStart?.();
      };
      try {
        const result = await connection.generate(request, { ...hooks, onStart });
        this.#failures = 0;
        this.#fingerprint ??= connection.info.fingerprint;
        this.#lastProbe = { ok: true, at_ms: Date.now() };
        return result;
      } catch (error) {
        // A process that was gone before it began is no reason to fail: the next one draws, or says why there is none.
        if (hasStarted || !(error instanceof DaybreakError) || error.code !== "engine.crashed") throw error;
      }
    }
  }

  #adopt(connection: EngineConnection): void {
    this.#current = connection;
    this.#info = connection.info;
    this.#fingerprint ??= connection.info.fingerprint;
    this.#state = "ready";
    this.#lastProbe = { ok: true, at_ms: Date.now() };
    void connection.ended.then((reason) => {
      this.#current = undefined;
      if (this.#life.signal.aborted) this.#connection = rejected(reason);
      else this.#replacing = this.#replace(reason);
    });
  }

  /** Starts processes until one is up, or this is closed. */
  async #replace(reason: DaybreakError): Promise<void> {
    const { signal } = this.#life;
    const started = this.#awaitStart();
    let failure = reason;
    while (!signal.aborted) {
      this.#failures += 1;
      this.#lastProbe = { ok: false, at_ms: Date.now(), error: failure };
      if (this.#failures >= failuresUntilRefusal) {
        this.#state = "failed";
        this.#reason = failure;
        const refusal = unavailable(failure);
        started.reject(refusal);
        this.#connection = rejected(refusal);
      }
      this.#options.onRestart?.(failure);
      await sleep(restartDelay_ms(this.#failures), undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      this.#restarts += 1;
      try {
        const connection = await EngineConnection.open(this.#options, signal);
        await this.#checkWeights(connection);
        this.#adopt(connection);
        started.resolve(connection);
        this.#connection = Promise.resolve(connection);
        return;
      } catch (error) {
        failure = error as DaybreakError;
      }
    }
  }

  /** A process with other weights draws other pictures under the same name: it is ended. Errors: `weights.changed`. */
  async #checkWeights(connection: EngineConnection): Promise<void> {
    if (this.#fingerprint === null) return;
    try {
      // Weights that do not stay on the device have not been read so far.
      if (connection.info.fingerprint === null) await connection.generate(probeRequest, { onImage: () => undefined });
      const found = connection.info.fingerprint;
      if (found === this.#fingerprint) return;
      throw new DaybreakError(
        "weights.changed",
        `the checkpoint's weights have the fingerprint ${found}, those that were loaded first had ${this.#fingerprint}: put the files back, or start anew to use these`,
      );
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  /** From now on requests wait for a process, until what is returned says which it is, or why there is none. */
  #awaitStart() {
    let resolve: (connection: EngineConnection) => void = () => undefined;
    let reject: (reason: DaybreakError) => void = () => undefined;
    this.#state = "starting";
    this.#connection = new Promise((...settle) => {
      [resolve, reject] = settle;
    });
    this.#connection.catch(() => undefined); // nobody may be waiting
    return { resolve, reject };
  }

  /** Waits for `work`, but no longer than the caller or this lives. */
  #until<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return unlessAborted(unlessAborted(work, this.#life.signal, engineClosed), signal, requestCancelled);
  }
}

/** Opens the first process. One that a driver ends while kernels are measured is followed by one that measures none. */
async function openFirst(options: EngineProcessOptions, signal: AbortSignal): Promise<EngineConnection> {
  let isTuning = false;
  const onProgress = (event: ProgressEvent) => {
    isTuning = event.stage === "tune";
    options.onProgress?.(event);
  };
  try {
    return await EngineConnection.open({ ...options, onProgress }, signal);
  } catch (error) {
    if (!isTuning || !(error instanceof DaybreakError) || error.code !== "engine.crashed") throw error;
    return EngineConnection.open({ ...options, tune: "cached" }, signal);
  }
}

function unavailable(reason: DaybreakError): DaybreakError {
  return new DaybreakError("engine.unavailable", `the engine cannot be started: ${reason.message}`, { cause: reason });
}

/** The first replacement comes at once, the next after 1, 2, 4 … seconds. */
function restartDelay_ms(failures: number): number {
  return failures === 1 ? 0 : Math.min(longestDelay_ms, 1000 * 2 ** (failures - 2));
}

function rejected(reason: DaybreakError): Promise<never> {
  const promise = Promise.reject(reason);
  promise.catch(() => undefined); // nobody may be asking
  return promise;
}
