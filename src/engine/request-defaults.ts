// What a checkpoint's configs decide about requests that leave something open. A file of its own because a request can
// be judged as soon as the configs are read, long before the weights are loaded.

import { type CheckpointConfig, patchSize } from "./models/flux2/config.js";
import type { RequestDefaults } from "./request.js";

/** The defaults that `resolveRequest` takes, for one checkpoint. */
export function requestDefaults({ modelIndex, transformer, vae }: CheckpointConfig): RequestDefaults {
  return {
    isDistilled: modelIndex.isDistilled,
    sampleSize: vae.sampleSize,
    latentChannels: transformer.inChannels,
    tokenPixels: patchSize * vae.scaleFactor,
  };
}
