// One process that runs an engine, from its start to its end: starts it, carries requests and pictures, notices when it
// goes silent. Knows nothing of replacing it: engine-process.ts does that. Every way in which the process can end
// resolves `ended` with the reason, and rejects whatever was waiting for an answer with the same.

import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { platform } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import type { EngineInfo } from "../engine/engine.js";
import type { GeneratedImage, PartialImagePosition, ProgressEvent, RgbImage } from "../engine/request.js";
import { DaybreakError, engineClosed, errorFromPlain } from "../errors.js";
import {
  type EngineMemory,
  type FromEngine,
  heartbeat_ms,
  type LoadOptions,
  type ProcessRequest,
  type ProcessResult,
  type ToEngine,
} from "./engine-messages.js";
import { packageRoot } from "./package.js";
import { limitsBehind } from "./system-limits.js";

export type ConnectionOptions = LoadOptions & {
  /** Loading progress. */
  onProgress?: (event: ProgressEvent) => void;
  /** What the process prints, line by line: drivers do that. */
  onLog?: (line: string) => void;
  /** The Node that runs the process; default: the one that runs this. Electron's cannot read results back from Dawn. */
  execPath?: string;
  /** A process that says nothing for so long is ended; default {@link defaultSilenceLimit_ms}. */
  silenceLimit_ms?: number;
};

export type ProcessHooks = {
  /** Honoured before the engine begins, and then soon, within a step, too. */
  signal?: AbortSignal;
  /** The engine has begun. */
  onStart?: () => void;
  onProgress?: (event: ProgressEvent) => void;
  /** Takes each image; while its promise is pending, the engine goes on but delivers none. */
  onImage: (image: GeneratedImage, index: number) => void | Promise<void>;
  onPartialImage?: (image: RgbImage, at: PartialImagePosition) => void | Promise<void>;
};

/** Heartbeats come every second; loading and compiling may block them for a while on a slow machine. */
const defaultSilenceLimit_ms = 120_000;
/** How often it is looked for within that time, at least. */
const silenceTicks = 4;
/** So many heartbeats that did not come make a process that one cannot count on. */
const missedBeats = 8;

type PendingRequest = {
  hooks: ProcessHooks;
  resolve: (result: ProcessResult) => void;
  reject: (error: unknown) => void;
  /** What a hook threw: the request is cancelled, and fails with this. */
  mistake?: { error: unknown };
};

/** The program, as built: also when the sources themselves run, as in tests, a process of its own needs JavaScript. */
function programPath(): string {
  return join(packageRoot(), "dist", "src", "node", "engine-child.js");
}

/** A process with an engine that is open. */
export class EngineConnection {
  /** Resolves with the reason when the process has ended. */
  readonly ended: Promise<DaybreakError>;

  readonly #child: ChildProcess;
  readonly #pending = new Map<number, PendingRequest>();
  readonly #options: ConnectionOptions;
  readonly #watch: NodeJS.Timeout;
  readonly #silenceLimit_ms: number;
  /** For how long nothing was heard of it, in ticks of the watch. */
  #silence_ms = 0;
  #memory: EngineMemory = { deviceBytes: 0, weightBytes: 0, rssBytes: 0 };
  #opening: { resolve: () => void; reject: (error: DaybreakError) => void } | undefined;
  #info: EngineInfo | undefined;
  #lastId = 0;
  /** Why the process was ended, if it was ended from here. */
  #reason: DaybreakError | undefined;
  #hasEnded = false;

  private constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#silenceLimit_ms = options.silenceLimit_ms ?? defaultSilenceLimit_ms;
    const tick_ms = Math.min(heartbeat_ms, this.#silenceLimit_ms / silenceTicks);
    this.#watch = setInterval(() => this.#onTick(tick_ms), tick_ms).unref();
    this.#child = fork(programPath(), [], {
      serialization: "advanced",
      // What loaders and debuggers this process was started with is not meant for that one.
      ...endingWithParent(options.execPath ?? process.execPath),
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child.on("message", (message: FromEngine) => this.#receive(message));
    for (const stream of [this.#child.stdout, this.#child.stderr]) readLines(stream as Readable, options.onLog);
    this.ended = new Promise((resolve) => {
      this.#child.on("error", (cause) => this.#end(crashed(`could not be run (${cause.message})`, cause), resolve));
      this.#child.once("exit", (status, signal) => {
        this.#end(
          crashed(signal ? `was ended by ${signal}${limitsBehind(signal)}` : `ended with status ${status}`),
          resolve,
        );
      });
    });
  }

  /**
   * Starts a process and opens the engine in it.
   * Errors: those of `openEngine`, `engine.crashed`, `engine.closed` if `signal` is aborted. No process stays after one.
   */
  static async open(options: ConnectionOptions, signal: AbortSignal): Promise<EngineConnection> {
    const connection = new EngineConnection(options);
    const stop = () => void connection.close();
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    try {
      await new Promise<void>((resolve, reject) => {
        connection.#opening = { resolve, reject };
        const { model, precision, memoryBudgetBytes, tune, expected, tuneSeconds } = options;
        connection.#send({
          type: "open",
          options: { model, precision, memoryBudgetBytes, tune, expected, tuneSeconds },
        });
      });
    } finally {
      signal.removeEventListener("abort", stop);
      connection.#opening = undefined;
    }
    return connection;
  }

  get info(): EngineInfo {
    return this.#info as EngineInfo;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Errors: those of `Engine.generate`, `engine.crashed`, `engine.closed`; what a hook throws. */
  generate(request: ProcessRequest, hooks: ProcessHooks): Promise<ProcessResult> {
    const id = ++this.#lastId;
    const { signal } = hooks;
    const cancel = () => this.#send({ type: "cancel", id });
    const result = new Promise<ProcessResult>((resolve, reject) => {
      this.#pending.set(id, { hooks, resolve, reject });
    });
    this.#send({ type: "generate", id, request });
    signal?.addEventListener("abort", cancel);
    if (signal?.aborted) cancel();
    return result.finally(() => {
      signal?.removeEventListener("abort", cancel);
      this.#pending.delete(id);
    });
  }

  /** As the process last told it: nobody who asks waits for a process that hangs. */
  get memory(): EngineMemory {
    return this.#memory;
  }

  /** Whether several heartbeats did not come. */
  get isSilent(): boolean {
    return this.#silence_ms > missedBeats * heartbeat_ms;
  }

  /** Ends the process, by force: it has nothing to save. What was running fails with `engine.closed`. */
  async close(): Promise<void> {
    this.#kill(engineClosed());
    await this.ended;
  }

  #kill(reason: DaybreakError): void {
    this.#reason ??= reason;
    this.#child.kill("SIGKILL");
  }

  #end(reason: DaybreakError, resolve: (reason: DaybreakError) => void): void {
    this.#hasEnded = true;
    this.#reason ??= reason;
    clearInterval(this.#watch);
    this.#rejectAll(this.#reason);
    resolve(this.#reason);
  }

  #rejectAll(reason: DaybreakError): void {
    this.#opening?.reject(reason);
    for (const { reject, mistake } of this.#pending.values()) reject(mistake ? mistake.error : reason);
  }

  /** Messages to a process that is ending are lost: its end answers for them, or this does after it. */
  #send(message: ToEngine): void {
    if (this.#hasEnded) this.#rejectAll(this.#reason as DaybreakError);
    else this.#child.send(message, undefined, undefined, () => undefined);
  }

  /** Counts ticks instead of looking at a clock, which goes on while the machine sleeps. */
  #onTick(tick_ms: number): void {
    this.#silence_ms += tick_ms;
    if (this.#silence_ms > this.#silenceLimit_ms) this.#kill(crashed("gave no sign of life for too long"));
  }

  #receive(message: FromEngine): void {
    this.#silence_ms = 0;
    if ("memory" in message) this.#memory = message.memory;
    switch (message.type) {
      case "loading":
        this.#options.onProgress?.(message.event);
        break;
      case "opened":
        this.#info = message.info;
        this.#opening?.resolve();
        break;
      case "info":
        this.#info = message.info;
        break;
      case "open_failed":
        this.#kill(errorFromPlain(message.error));
        break;
      case "alive":
        break;
      default:
        this.#receiveOf(message);
        break;
    }
  }

  /** What belongs to a request. */
  #receiveOf(message: Extract<FromEngine, { id: number }>): void {
    const { id } = message;
    const pending = this.#pending.get(id);
    if (!pending) return;
    const { hooks } = pending;
    switch (message.type) {
      case "start":
        this.#callHook(id, pending, () => hooks.onStart?.());
        break;
      case "progress":
        this.#callHook(id, pending, () => hooks.onProgress?.(message.event));
        break;
      case "image":
        this.#handOver(id, pending, () => hooks.onImage(message.image, message.index));
        break;
      case "partial":
        this.#handOver(id, pending, () => hooks.onPartialImage?.(message.image, message.at));
        break;
      case "done":
        if (pending.mistake) pending.reject(pending.mistake.error);
        else pending.resolve(message.result);
        break;
      case "failed": {
        const error = errorFromPlain(message.error);
        if (message.isFatal) this.#kill(error);
        else pending.reject(pending.mistake ? pending.mistake.error : error);
      }
    }
  }

  /** A picture is taken when its hook is done with it; the engine waits for that. */
  #handOver(id: number, pending: PendingRequest, hook: () => void | Promise<void>): void {
    void (async () => hook())().then(
      () => this.#send({ type: "taken", id }),
      (error) => this.#fail(id, pending, error),
    );
  }

  #callHook(id: number, pending: PendingRequest, hook: () => void): void {
    try {
      hook();
    } catch (error) {
      this.#fail(id, pending, error);
    }
  }

  /** A hook threw: the request is cancelled and will be rejected with what was thrown first. */
  #fail(id: number, pending: PendingRequest, error: unknown): void {
    pending.mistake ??= { error };
    if (this.#pending.has(id)) this.#send({ type: "cancel", id });
  }
}

/**
 * How a program is started so that Linux ends it with this process, whatever happens to either: util-linux' setpriv asks for
 * that and becomes the program. Elsewhere, where setpriv is missing, and under Deno, whose fork starts nothing but Deno, the
 * program notices by itself that its parent is gone, unless its event loop is stuck.
 */
function endingWithParent(execPath: string): { execPath: string; execArgv: string[] } {
  const wrap = ["--pdeathsig", "KILL", "--"];
  const canWrap = platform() === "linux" && !process.versions.deno;
  canAskKernel ??= canWrap && spawnSync("setpriv", [...wrap, "true"], { stdio: "ignore" }).status === 0;
  return canAskKernel ? { execPath: "setpriv", execArgv: [...wrap, execPath] } : { execPath, execArgv: [] };
}

let canAskKernel: boolean | undefined;

function crashed(how: string, cause?: unknown): DaybreakError {
  const message = `the engine's process ${how}: try again, and see \`daybreak doctor\` if that happens often`;
  return new DaybreakError("engine.crashed", message, { cause });
}

function readLines(stream: Readable, onLine: ((line: string) => void) | undefined): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = (lines.pop() as string).slice(-maxLineLength);
    for (const line of lines) if (line.trim()) onLine?.(line);
  });
}

const maxLineLength = 10_000;
