// What the process of the engine and its parent say to each other. Types only; what crosses is a structured clone, so
// bigint and Uint8Array arrive as they were sent, and errors as a code and a message.
// A request is answered by `start`, then any number of `progress`, `image` and `partial`, then `done` or `failed`.

import type { EngineInfo } from "../engine/engine.js";
import type {
  GeneratedImage,
  GenerateHooks,
  GenerateRequest,
  JudgedRequest,
  PartialImagePosition,
  ProgressEvent,
  RgbImage,
  Timings,
} from "../engine/request.js";
import type { PlainError } from "../errors.js";
import type { OpenEngineOptions } from "./open-engine.js";

/** A request without what cannot cross, which its hooks are asked for. */
export type ProcessRequest = Omit<GenerateRequest, keyof GenerateHooks | "latents"> | JudgedRequest;

export type ProcessResult = { timings: Timings; warnings: string[] };

export type EngineMemory = {
  /** All buffers on the device. */
  deviceBytes: number;
  /** Those of them that hold weights. */
  weightBytes: number;
  /** The process's main memory. */
  rssBytes: number;
};

/** As `openEngine` takes them. */
export type LoadOptions = Pick<
  OpenEngineOptions,
  "model" | "precision" | "memoryBudgetBytes" | "tune" | "expected" | "tuneSeconds"
>;

export type ToEngine =
  | { type: "open"; options: LoadOptions }
  | { type: "generate"; id: number; request: ProcessRequest }
  /** The picture that came last was taken: the next may come. */
  | { type: "taken"; id: number }
  | { type: "cancel"; id: number };

export type FromEngine =
  | { type: "loading"; event: ProgressEvent }
  | { type: "opened"; info: EngineInfo; memory: EngineMemory }
  /** Something of it has changed. */
  | { type: "info"; info: EngineInfo }
  | { type: "open_failed"; error: PlainError }
  /** Every {@link heartbeat_ms}: the event loop turns. */
  | { type: "alive"; memory: EngineMemory }
  | { type: "start"; id: number }
  | { type: "progress"; id: number; event: ProgressEvent }
  | { type: "image"; id: number; image: GeneratedImage; index: number }
  | { type: "partial"; id: number; image: RgbImage; at: PartialImagePosition }
  | { type: "done"; id: number; result: ProcessResult; memory: EngineMemory }
  /** `isFatal`: no further request would succeed in this process. */
  | { type: "failed"; id: number; error: PlainError; isFatal: boolean };

export const heartbeat_ms = 1000;

/** The request that proves that the device draws: as small as it gets while all kernels run. */
export const probeRequest = {
  prompt: "a red circle",
  width: 64,
  height: 64,
  steps: 1,
  seed: 0n,
} satisfies ProcessRequest;
