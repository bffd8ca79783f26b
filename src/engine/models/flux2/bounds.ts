// What a checkpoint of the family draws: sizes, prompts, references, and the defaults of requests.

import type { ReferenceBounds, RequestBounds } from "../../request.js";
import { type CheckpointConfig, promptTokens, tokenPixels } from "./config.js";
import { latentGrid } from "./latents.js";
import { preparedSize, referenceLimits } from "./reference-image.js";
import { maxTokenPixels } from "./vae-config.js";

/** What requests may hold, and the defaults of BFL's pipelines. */
export function boundsOf(config: CheckpointConfig): RequestBounds {
  const { modelIndex, transformer, vae } = config;
  const { isDistilled } = modelIndex;
  const multiple = tokenPixels(config);
  const references: ReferenceBounds = {
    limits: referenceLimits,
    preparedSize: (size) => preparedSize(size, multiple),
  };
  const grid = (size: { width: number; height: number }) => latentGrid(size.width, size.height, multiple);
  const [width, height] = [vae.sampleSize, vae.sampleSize];
  return {
    sizeMultiple: maxTokenPixels,
    defaults: isDistilled ? { width, height, steps: 4, guidance: 1 } : { width, height, steps: 50, guidance: 4 },
    isDistilled,
    promptTokens,
    references,
    frames: 1,
    latentShape: (size) => [transformer.inChannels, grid(size).h, grid(size).w],
    latentTokens: (size) => grid(size).h * grid(size).w,
  };
}
