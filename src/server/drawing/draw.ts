// From a judged drawing to finished files: through the queue and the engine, with encoders beside it. Every API draws
// through here. Knows no bodies, no events, no URLs.

import { firstAborted } from "../../abort.js";
import type { GeneratedImage, RgbImage, Timings } from "../../engine/request.js";
import { imageSeed } from "../../engine/sampling/noise.js";
import type { ImageFormat } from "../../media/encode.js";
import { parameterTexts } from "../../media/parameters.js";
import type { Caller } from "../http/caller.js";
import type { DrawingContext } from "./context.js";
import { toApiError } from "./errors.js";
import type { ImageFile } from "./files.js";
import type { Job } from "./jobs.js";
import type { Drawing, Video } from "./judge.js";
import { decodeReferences } from "./reference-files.js";

/** Milliseconds. */
export type DrawingTimings = {
  queue: number;
  encode_prompt: number;
  denoise: number;
  decode: number;
  encode_file: number;
};

export type DrawingHooks = {
  /** The caller's API key, for fairness. */
  caller: string | undefined;
  signal: AbortSignal;
  /** The job has left the queue. */
  onStart?: () => void;
  onStep?: (at: { image: number; step: number; steps: number; eta_ms: number }) => void;
  onPartial?: (file: ImageFile, at: { image: number; index: number }) => void;
  onImage?: (file: ImageFile, index: number) => Promise<void>;
  /** A finished MP4 file at a temporary path of the store, which the callee takes over. */
  onVideo?: (path: string) => Promise<void>;
};

/**
 * Queues a drawing. The result settles after the last hook has. Nothing half-finished stays after an error.
 * Throws ApiError when the queue is full; the result rejects with ApiError.
 */
export function submitDrawing(context: DrawingContext, drawing: Drawing, hooks: DrawingHooks): Job<DrawingTimings> {
  const submitted = performance.now();
  const { caller } = hooks;
  const work = async (signal: AbortSignal) => {
    const queue = performance.now() - submitted;
    context.metrics.queueWait.observe(queue / 1000);
    hooks.onStart?.();
    const { decoded, decoding_ms } = await withReferences(context, drawing, signal);
    const { engine, encode_file } =
      drawing.output.type === "video"
        ? await drawVideo(context, decoded, drawing.output, { ...hooks, signal })
        : await drawImages(context, decoded, drawing.output, { ...hooks, signal });
    const timings = {
      queue,
      encode_prompt: engine.prompt_ms + engine.references_ms + decoding_ms,
      denoise: engine.denoise_ms,
      decode: engine.decode_ms,
      encode_file,
    };
    for (const [stage, ms] of Object.entries(timings)) {
      if (stage !== "queue") context.metrics.stages.observe({ stage }, ms / 1000);
    }
    return timings;
  };
  // Its files while it waits, and beside them their pixels once it runs.
  const bytes = drawing.references.reduce(
    (sum, { bytes, size }) => sum + bytes.length + size.width * size.height * 3,
    0,
  );
  const job = context.jobs.submit(work, { caller, signal: hooks.signal, bytes });
  const result = job.result.catch((error: unknown) => {
    throw toApiError(error, drawing.sizeParam);
  });
  return { isWaiting: job.isWaiting, result };
}

/** The drawing with the pixels of its references, which are decoded here and not earlier: now it is its caller's turn. */
async function withReferences(context: DrawingContext, drawing: Drawing, signal: AbortSignal) {
  const began = performance.now();
  const references = await decodeReferences(context, drawing.references, signal);
  const decoded: Drawing = { ...drawing, request: { ...drawing.request, references } };
  return { decoded, decoding_ms: performance.now() - began };
}

type Drawn = { engine: Timings; encode_file: number };

/** Files are encoded while the engine draws the next picture; the first failure stops everything. */
async function drawImages(
  context: DrawingContext,
  drawing: Drawing,
  { format, quality }: { format: ImageFormat; quality: number },
  hooks: DrawingHooks,
): Promise<Drawn> {
  const { workers, metrics } = context;
  const failure = new AbortController();
  const { signal, release } = firstAborted(hooks.signal, failure.signal);
  let encode_file = 0;
  const encode = async (image: RgbImage, seed: bigint): Promise<ImageFile> => {
    const { width, height } = image;
    const began = performance.now();
    const bytes = await workers.encodeImage(image, { format, quality, text: texts(context, drawing, seed) });
    encode_file += performance.now() - began;
    return { bytes, format, width, height, seed: Number(seed) };
  };
  const pending: Promise<void>[] = [];
  const keep = (work: Promise<void>) => {
    pending.push(work);
    work.catch((error) => failure.abort(error));
  };
  const onImage = (image: GeneratedImage, index: number) => {
    metrics.images.inc();
    keep(encode(image, image.seed).then((file) => hooks.onImage?.(file, index)));
  };
  try {
    const { timings } = await context.engine.generate(drawing.request, {
      signal,
      onProgress: stepWatcher(hooks),
      onImage,
      onPartialImage: async (image, { image: i, index }) => {
        hooks.onPartial?.(await encode(image, imageSeed(drawing.request.seed, i)), { image: i, index });
      },
    });
    await Promise.all(pending);
    return { engine: timings, encode_file };
  } catch (error) {
    await Promise.allSettled(pending);
    throw failure.signal.aborted ? failure.signal.reason : error;
  } finally {
    release();
  }
}

/** Frames go from the engine to the encoder one by one; neither runs far ahead of the other. */
async function drawVideo(
  context: DrawingContext,
  drawing: Drawing,
  { framesPerSecond }: Video,
  hooks: DrawingHooks,
): Promise<Drawn> {
  const { workers, store, metrics } = context;
  const { width, height } = drawing.request;
  const path = store.temporaryPath("mp4");
  const writer = await workers.openVideo({ path, width, height, framesPerSecond });
  let encode_file = 0;
  const timed = async (work: Promise<void>) => {
    const began = performance.now();
    await work;
    encode_file += performance.now() - began;
  };
  try {
    const { timings } = await context.engine.generate(drawing.request, {
      signal: hooks.signal,
      onProgress: stepWatcher(hooks),
      onImage: async (frame) => {
        metrics.images.inc();
        await timed(writer.write(frame));
      },
    });
    await timed(writer.finish());
    await hooks.onVideo?.(path);
    return { engine: timings, encode_file };
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/** Turns the engine's progress into steps and an estimate of what is left of the denoising of all pictures. */
function stepWatcher({ onStep }: DrawingHooks) {
  let began = 0;
  return (event: { stage: string; done: number; total: number; image: number; numImages: number }) => {
    if (event.stage !== "denoise") return;
    const { done, total, image, numImages } = event;
    if (done === 0) {
      if (image === 0) began = performance.now();
      return;
    }
    const finished = image * total + done;
    const eta_ms = ((performance.now() - began) / finished) * (numImages * total - finished);
    onStep?.({ image, step: done, steps: total, eta_ms: Math.round(eta_ms) });
  };
}

function texts(context: DrawingContext, drawing: Drawing, seed: bigint): Record<string, string> | undefined {
  return context.options.metadata ? pictureTexts(context, drawing, seed) : undefined;
}

/** How the picture of a seed was made, as the text chunks of its PNG file say it. */
export function pictureTexts({ options, engine }: DrawingContext, drawing: Drawing, seed: bigint) {
  const { prompt, negativePrompt, width, height, steps, guidance } = drawing.request;
  const parameters = {
    ...{ prompt: prompt.text, width, height, steps, seed },
    negativePrompt: negativePrompt?.text,
    guidance: negativePrompt ? guidance : 1,
    model: options.modelName,
    precision: engine.info.precision,
    fingerprint: engine.info.fingerprint ?? undefined,
    references: drawing.references.length, // of the request those are empty until its turn
  };
  return parameterTexts(parameters, options.version);
}

/** Prompts are private: writes one to the log only where the options want that. */
export function logPrompt(context: DrawingContext, { requestId }: Caller, prompt: string, response?: string): void {
  if (context.options.logPrompts) context.log.info({ request: requestId, response, prompt }, "drawing");
}
