// A running server: opens everything in order, proves that the GPU draws, listens; and closes everything in order.
// Owns the life of engine, store and listener; knows no route.

import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type DestinationStream, type Logger, pino } from "pino";
import { openModel } from "../engine/checkpoint.js";
import type { Precision, ProgressEvent, RgbImage } from "../engine/request.js";
import { requestCancelled, throwIfAborted, unlessAborted } from "../errors.js";
import { MarkDetector } from "../media/detector.js";
import type { EncodeOptions } from "../media/encode.js";
import type { DetectOptions } from "../media/marks/detect.js";
import { type Marking, markNames } from "../media/marks/mark.js";
import { knownSigners, type MarkChoice, openMarks } from "../media/marks/open.js";
import { MediaStore } from "../media/store.js";
import { MediaWorkers } from "../media/workers.js";
import { folderSource } from "../node/checkpoint-folder.js";
import { EngineProcess } from "../node/engine-process.js";
import { modelName } from "../node/model-name.js";
import { embeddedModel } from "../node/open-engine.js";
import { packageManifest } from "../node/package.js";
import { checkDrawingLimits, checkFileLimit } from "../node/system-limits.js";
import type { TuneMode } from "../node/tune.js";
import { type App, createApp } from "./app.js";
import type { ServerContext, ServerOptions } from "./context.js";
import { JobQueue } from "./drawing/jobs.js";
import { checkAddress } from "./http/address.js";
import { IdempotencyKeys } from "./http/idempotency.js";
import { ApiKeys, readApiKeys } from "./http/keys.js";
import { type ListenerChoice, listen } from "./http/listen.js";
import { stderrLog, visibleLines } from "./http/log.js";
import type { Listener } from "./http/messages.js";
import { createMetrics } from "./metrics.js";
import type { OutputProfile } from "./responses/request-schema.js";
import { ResponseStore } from "./responses/store.js";

export type StartOptions = {
  /** A checkpoint folder; default: the embedded model. */
  model?: string;
  /** Default: what the folder says of itself. */
  modelName?: string;
  /** Further names for it; default none. */
  modelAliases?: string[];
  /** Whether it is served under every name. */
  anyModel?: boolean;
  /** How responses wrap pictures where a request does not say; default `message`. */
  outputItem?: OutputProfile;
  host: string;
  /** 0: any free one. */
  port: number;
  listener: ListenerChoice;
  precision?: Precision;
  memoryBudgetBytes?: number;
  /** Whether kernels are measured where that was not done yet; default `cached`. */
  tune?: TuneMode;
  /** Stored media and responses; made if it does not exist. */
  dataDir: string;
  /** 0: no limit. */
  mediaBudgetBytes: number;
  /** 0: for ever. */
  mediaTtl_ms: number;
  /** Default: a square of the checkpoint's sample size. */
  defaultSize?: { width: number; height: number };
  publicUrl?: string;
  trustProxy?: boolean;
  corsOrigins?: string[];
  /** Further names of this server, lower case, `name` or `name:port`; see http/visitors.ts. */
  allowedHosts?: string[];
  imageHosts?: string[];
  apiKeyFile?: string;
  protectMedia?: boolean;
  metadata?: boolean;
  /** By which files say that a machine made them; default: their metadata. */
  marks?: MarkChoice;
  logPrompts?: boolean;
  /** Any text; compacted conversations outlive the process only with it. */
  stateKey?: string;
  /** How long a connection may stay open between two requests; default 75 s. */
  keepAlive_ms?: number;
  /** Where log lines go; default stderr. */
  log?: DestinationStream;
  logLevel?: string;
  onLoading?: (event: ProgressEvent) => void;
  /** Aborted while the server starts: it gives up soon, whatever it is loading. Later it means nothing. */
  signal?: AbortSignal;
};

export type RunningServer = {
  url: string;
  listener: Listener["name"];
  adapter: string;
  modelName: string;
  app: App;
  /** Id of the engine's process, while it is up. */
  readonly enginePid: number | undefined;
  /**
   * Reads the key file again, if there is one; what is under way goes on. If it cannot be read, or holds no key, the keys
   * stay as they are. What happened is in the log.
   */
  reloadKeys(): Promise<void>;
  /** Takes no more requests, lets those that run finish for so long, fails the rest, frees everything. */
  close(grace_ms: number): Promise<void>;
};

const starting = "the server's start";
/** Time for running jobs to stop; then their engine is ended. */
const step_ms = 2000;
/** The longest time of a timer: one that is set to more fires at once. */
const longestTimer_ms = 2 ** 31 - 1;
/** Time for the last events to reach their readers. */
const farewell_ms = 200;

/**
 * Starts a server. Errors: those of the checkpoint and the device, `media.*`, `file.unreadable`, `server.*`;
 * `request.cancelled` or `engine.closed` if `signal` is aborted; nothing stays open after one.
 */
export async function startServer(options: StartOptions): Promise<RunningServer> {
  const log = pino({ level: options.logLevel ?? "info" }, visibleLines(options.log ?? stderrLog()));
  const closers: (() => Promise<unknown> | unknown)[] = [];
  const closeAll = async () => {
    for (const close of closers.reverse()) await close();
  };
  try {
    return await start(options, log, closers, closeAll);
  } catch (error) {
    await closeAll();
    if (options.signal?.aborted) log.info("stopped");
    throw error;
  }
}

async function start(
  options: StartOptions,
  log: Logger,
  closers: (() => Promise<unknown> | unknown)[],
  closeAll: () => Promise<void>,
): Promise<RunningServer> {
  const { signal } = options;
  checkFileLimit();
  checkDrawingLimits(); // the threads that make files take addresses, too
  const keys = options.apiKeyFile === undefined ? undefined : new ApiKeys(await readApiKeys(options.apiKeyFile));
  await checkAddress(options.host, options.port); // before a model is loaded for nothing
  const checkpoint = options.model ?? embeddedModel();
  const { model, name } = await readModel(checkpoint);
  const { width, height } = model.bounds.defaults;
  const defaultSize = options.defaultSize ?? { width, height };

  const folder = join(options.dataDir, "store");
  const { mediaBudgetBytes: budgetBytes, mediaTtl_ms: ttl_ms } = options;
  const store = await MediaStore.open({ folder, budgetBytes, ttl_ms, signal });
  closers.push(() => store.close());
  if (store.unwritable) {
    const { code, message } = store.unwritable;
    log.warn({ code }, `stored files can be read, but nothing can be stored or deleted until a restart: ${message}`);
  }
  const responses = await ResponseStore.open(store);
  const workers = MediaWorkers.open();
  closers.push(() => workers.close());
  const knownAs = options.modelName ?? name;
  const marking = await readMarks(options, knownAs, workers, log); // tried before a model is loaded for nothing
  throwIfAborted(signal, starting);
  const engine = await openEngine(options, { model: checkpoint, expected: defaultSize }, log);
  closers.push(() => engine.close());
  await unlessAborted(engine.probe(), signal, (reason) => requestCancelled(reason, starting));

  const jobs = new JobQueue();
  const detector = new MarkDetector();
  closers.push(() => detector.close());
  const context: ServerContext = {
    options: serverOptions(options, { modelName: knownAs, defaultSize, keys, marking }),
    ...{ engine, model, store, workers, jobs, responses, log },
    detection: { detector, jobs: new JobQueue(), options: () => detectOptions(marking, options.dataDir) },
    heldBytes: { count: 0 },
    idempotency: new IdempotencyKeys(),
    metrics: createMetrics({
      jobs: () => jobs,
      mediaBytes: () => store.totalBytes,
      evictions: () => store.evictions,
      restarts: () => engine.restarts,
      gpuMemory: () => engine.memory(),
    }),
  };
  const app = createApp(context);
  const listener = await listen(app, options);
  closers.push(() => listener.close());
  const host = options.host.includes(":") ? `[${options.host}]` : options.host;
  const url = `http://${host}:${listener.port}`;
  const { modelName } = context.options;
  log.info({ url, listener: listener.name, model: modelName, adapter: engine.info.adapter }, "serving");

  let closing: Promise<void> | undefined;
  return {
    url,
    listener: listener.name,
    adapter: engine.info.adapter,
    modelName,
    app,
    get enginePid() {
      return engine.pid;
    },
    reloadKeys: () => reloadKeys(options.apiKeyFile, keys, log),
    close(grace_ms) {
      closing ??= shutDown(context, { app, listener, closeAll }, grace_ms);
      return closing;
    },
  };
}

function openEngine(
  options: StartOptions,
  served: { model: string; expected: { width: number; height: number } },
  log: Logger,
): Promise<EngineProcess> {
  const { precision, memoryBudgetBytes, tune, onLoading, signal } = options;
  return EngineProcess.open({
    ...{ ...served, precision, memoryBudgetBytes, tune, signal },
    onProgress: (event) => {
      // A log line and a progress line at once would share a line of the terminal.
      if (event.stage !== "tune" || event.done > 0) return onLoading?.(event);
      log.info({ operations: event.total }, "choosing the fastest kernels for this device, once: about 10 s at most");
    },
    onRestart: (reason) => log.error({ err: reason }, "the engine failed and is being replaced"),
    // Drivers are talkative; what went wrong comes as an error of its own.
    onLog: (line) => log.debug({ engine: line }, "the engine says"),
  });
}

/** The marks of what this server draws; says which, once. */
async function readMarks(
  { marks = { level: "metadata" }, dataDir }: StartOptions,
  model: string,
  workers: MediaWorkers,
  log: Logger,
): Promise<Marking | undefined> {
  const { version } = packageManifest();
  const encode = (image: RgbImage, encoding: EncodeOptions) => workers.encodeImage(image, encoding);
  const { marking, said, warnings } = await openMarks(marks, { model, version }, encode, credentialsFolder(dataDir));
  for (const warning of warnings) log.warn(warning);
  log.info({ marks: markNames(marking) }, said);
  return marking;
}

/** Where self-made credentials are kept. */
function credentialsFolder(dataDir: string): string {
  return join(dataDir, "credentials");
}

/** What files are looked at with: this server's own signatures count as known, and its own key is tried. */
async function detectOptions(marking: Marking | undefined, dataDir: string): Promise<DetectOptions> {
  return { anchors: await knownSigners(marking, credentialsFolder(dataDir)), key: marking?.watermark?.key };
}

async function reloadKeys(path: string | undefined, keys: ApiKeys | undefined, log: Logger): Promise<void> {
  if (path === undefined || !keys) {
    log.warn("asked to read the keys again, but there is no key file: nothing has changed");
    return;
  }
  try {
    keys.replace(await readApiKeys(path));
    log.info({ keys: keys.count }, "the keys were read again");
  } catch (error) {
    log.error({ err: error }, "the keys could not be read again: those that were known stay");
  }
}

/** What was asked for, with everything filled in. */
function serverOptions(
  options: StartOptions,
  known: Pick<ServerOptions, "modelName" | "defaultSize" | "keys" | "marking">,
): ServerOptions {
  const { stateKey } = options;
  return {
    ...known,
    modelAliases: [...new Set(options.modelAliases)].filter((name) => name !== known.modelName),
    anyModel: options.anyModel ?? false,
    outputItem: options.outputItem ?? "message",
    publicUrl: options.publicUrl?.replace(/\/+$/, ""),
    trustProxy: options.trustProxy ?? false,
    corsOrigins: options.corsOrigins ?? [],
    // Who has it listen on a name knows the server by it.
    allowedHosts: [...(options.allowedHosts ?? []), options.host.toLowerCase()],
    imageHosts: options.imageHosts ?? [],
    protectMedia: options.protectMedia ?? false,
    metadata: options.metadata ?? true,
    logPrompts: options.logPrompts ?? false,
    stateKey: stateKey === undefined ? randomBytes(32) : createHash("sha256").update(stateKey).digest(),
    version: packageManifest().version,
  };
}

type Open = { app: App; listener: Listener; closeAll: () => Promise<void> };

async function shutDown(context: ServerContext, { app, listener, closeAll }: Open, grace_ms: number): Promise<void> {
  const { engine, jobs, detection, log } = context;
  listener.stop();
  await Promise.race([
    Promise.all([jobs.drain(), detection.jobs.drain()]),
    sleep(Math.min(grace_ms, longestTimer_ms), undefined, { ref: false }),
  ]);
  const stopped = app.stopAll();
  await Promise.race([stopped, sleep(step_ms, undefined, { ref: false })]);
  await engine.close();
  await stopped;
  await sleep(farewell_ms);
  await closeAll();
  log.info("stopped");
}

/** What the serving process needs of a checkpoint, no weights, and its name. */
async function readModel(folder: string) {
  const source = await folderSource(folder);
  try {
    return { model: await openModel(source), name: await modelName(folder, source) };
  } finally {
    await source.close();
  }
}
