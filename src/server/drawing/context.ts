// What drawing needs of the server: the engine, the queue, the store, and the options that are about pictures.

import type { Logger } from "pino";
import type { Judge } from "../../engine/request.js";
import type { Marking } from "../../media/marks/mark.js";
import type { MediaStore } from "../../media/store.js";
import type { MediaWorkers } from "../../media/workers.js";
import type { EngineProcess } from "../../node/engine-process.js";
import type { JobQueue } from "./jobs.js";
import type { ServedNames } from "./model-name.js";

export type DrawingOptions = ServedNames & {
  /** Pixels; what is drawn where neither the request nor a reference says. */
  defaultSize: { width: number; height: number };
  /** Hosts that references may be fetched from. */
  imageHosts: string[];
  /** Whether media belong to the key that made them also for those who know their URLs. */
  protectMedia: boolean;
  /** Whether PNG files say how they were made. */
  metadata: boolean;
  /** By which files say that a machine made them; none. */
  marking: Marking | undefined;
  logPrompts: boolean;
  /** This program's. */
  version: string;
};

/** What is counted while drawing; times in seconds. */
export type DrawingMetrics = {
  queueWait: { observe(seconds: number): void };
  stages: { observe(labels: { stage: string }, seconds: number): void };
  images: { inc(): void };
};

export type DrawingContext = {
  options: DrawingOptions;
  engine: EngineProcess;
  /** What requests are judged by: the served checkpoint's bounds and tokenizer. */
  model: Judge;
  store: MediaStore;
  workers: MediaWorkers;
  jobs: JobQueue;
  metrics: DrawingMetrics;
  log: Logger;
};
