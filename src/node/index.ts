// The public API in Node (`daybreak/node`): that of `daybreak`, and what only Node has: checkpoint folders, Dawn,
// and what files say of who made them.
// Holds no code; importing it loads no native library, which `createGpu` and `openEngine` do when they are called.

export * from "../index.js";
export { type DetectOptions, detectMarks, type Marks } from "../media/marks/detect.js";
export { type FolderSource, folderSource } from "./checkpoint-folder.js";
export { type CreateGpuOptions, createGpu } from "./dawn.js";
export type { ProcessHooks } from "./engine-connection.js";
export type { EngineMemory, ProcessRequest, ProcessResult } from "./engine-messages.js";
export {
  EngineProcess,
  type EngineProcessOptions,
  type EngineProcessState,
  type ProbeResult,
} from "./engine-process.js";
export { embeddedModel, type OpenEngineOptions, openEngine } from "./open-engine.js";
export type { TuneMode } from "./tune.js";
