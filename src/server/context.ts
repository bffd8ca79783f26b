// What the routes share: the engine, the store, the queue, the options. Built once by `serve`, never changed.

import type { Logger } from "pino";
import type { Tokenizer } from "../engine/models/qwen3/tokenizer.js";
import type { RequestDefaults } from "../engine/request.js";
import type { MediaStore } from "../media/store.js";
import type { MediaWorkers } from "../media/workers.js";
import type { EngineProcess } from "../node/engine-process.js";
import type { JobQueue } from "./drawing/jobs.js";
import type { ApiKeys } from "./http/keys.js";
import type { Metrics } from "./metrics.js";
import type { ResponseStore } from "./responses/store.js";

export type ServerOptions = {
  /** The name that requests have to give, if they give one. */
  modelName: string;
  /** Pixels; what is drawn where neither the request nor a reference says. */
  defaultSize: { width: number; height: number };
  /** Base of the URLs in answers, without a slash at the end; default: what the request's Host says. */
  publicUrl?: string;
  /** Believe `X-Forwarded-Proto` and `X-Forwarded-Host`. */
  trustProxy: boolean;
  /** Origins that browsers may call from; "*" for any; default none. */
  corsOrigins: string[];
  /** Hosts that references may be fetched from. */
  imageHosts: string[];
  /** Without keys everybody may ask. */
  keys?: ApiKeys;
  /** Whether media URLs need a key as well. */
  protectMedia: boolean;
  /** Whether PNG files say how they were made. */
  metadata: boolean;
  logPrompts: boolean;
  /** 32 bytes that seal compacted conversations. */
  stateKey: Uint8Array;
  /** This program's. */
  version: string;
};

export type ServerContext = {
  options: ServerOptions;
  engine: EngineProcess;
  /** The served checkpoint's. */
  tokenizer: Tokenizer;
  defaults: RequestDefaults;
  store: MediaStore;
  workers: MediaWorkers;
  jobs: JobQueue;
  responses: ResponseStore;
  metrics: Metrics;
  log: Logger;
};

/** What is known of one request besides its body. */
export type Caller = {
  /** Stands for the API key; undefined where the server has none. */
  key: string | undefined;
  /** Base of URLs in the answer, without a slash at the end. */
  baseUrl: string;
  /** Hosts, with port, by which this server is known to the caller. */
  hosts: string[];
  requestId: string;
  signal: AbortSignal;
};
