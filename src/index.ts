/// <reference lib="dom" preserve="true" />

// The public API for any platform with WebGPU: a web page, an Electron renderer, Node. Everything reachable from here
// is web standard; files and Dawn come with `daybreak/node`. Exports only what callers need; tensors, kernels and the
// device stay inside.

export { Engine, type EngineInfo, type EngineOptions } from "./engine/engine.js";
export type { DeviceLimits, Tuning } from "./engine/gpu/facts.js";
export type {
  ExpectedPicture,
  GeneratedImage,
  GenerateHooks,
  GenerateRequest,
  GenerateResult,
  JudgedRequest,
  PartialImagePosition,
  Precision,
  ProgressEvent,
  ReferenceBounds,
  RequestBounds,
  RgbImage,
  Stage,
  Timings,
  TraceSink,
  TraceTensor,
} from "./engine/request.js";
export {
  maxNumImages,
  maxPartialImages,
  maxPixels,
  maxReferences,
  maxSide,
  maxSteps,
  maxWalkFrames,
} from "./engine/request.js";
export { type TuneOptions, tuneKernels } from "./engine/tune.js";
export { type TunedWorkload, type TunedWorkloads, tuningOf } from "./engine/tuning/choices.js";
export {
  blobSource,
  bytesSource,
  type CheckpointSource,
  type UrlSourceOptions,
  urlSource,
} from "./engine/weights/source.js";
export { DaybreakError, type ErrorCode, errorCodes } from "./errors.js";
export {
  type FindOptions,
  type FoundWatermark,
  findWatermark,
  findWatermarkInFrames,
} from "./watermark/find-watermark.js";
export type { WatermarkKind, WatermarkPayload } from "./watermark/payload.js";
export { embedWatermark, type WatermarkOptions } from "./watermark/watermark.js";
