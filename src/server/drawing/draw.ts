// From a judged drawing to finished files: through the queue and the engine, with encoders beside it. Every API draws
// through here. Knows no bodies, no events, no URLs.

import { firstAborted } from "../../abort.js";
import type { JudgedRequest, ProgressEvent, RgbImage, Timings } from "../../engine/request.js";
import { imageSeed } from "../../engine/sampling/noise.js";
import { DaybreakError } from "../../errors.js";
import type { ImageFormat } from "../../media/encode.js";
import { type FileMarks, markNames, marksOf, unsigned } from "../../media/marks/mark.js";
import { parameterTexts } from "../../media/parameters.js";
import type { ProcessHooks } from "../../node/engine-connection.js";
import type { Caller } from "../http/caller.js";
import type { DrawingContext } from "./context.js";
import { toApiError } from "./errors.js";
import type { ImageFile } from "./files.js";
import type { Job, Turn } from "./jobs.js";
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
  /** A finished MP4 file at a temporary path of the store, which the callee takes over, and the names of its marks. */
  onVideo?: (path: string, marks: string[]) => Promise<void>;
};

/**
 * Queues a drawing. The result settles after the last hook has. Nothing half-finished stays after an error.
 * Throws ApiError when the queue is full; the result rejects with ApiError.
 */
export function submitDrawing(context: DrawingContext, drawing: Drawing, hooks: DrawingHooks): Job<DrawingTimings> {
  const submitted = performance.now();
  const { caller } = hooks;
  const work = async (signal: AbortSignal, turn: Turn) => {
    const queue = performance.now() - submitted;
    context.metrics.queueWait.observe(queue / 1000);
    hooks.onStart?.();
    const { decoded, decoding_ms } = await withReferences(context, drawing, signal);
    const { engine, encode_file } =
      drawing.output.type === "video"
        ? await drawVideo(context, decoded, drawing.output, { ...hooks, signal, turn })
        : await drawImages(context, decoded, drawing.output, { ...hooks, signal, turn });
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

type Drawn = { engine: EngineTimings; encode_file: number };
type EngineTimings = Omit<Timings, "total_ms">;
type RunningHooks = DrawingHooks & { turn: Turn };

/** Files are encoded while the engine draws the next picture; the first failure stops everything. */
async function drawImages(
  context: DrawingContext,
  drawing: Drawing,
  { format, quality }: { format: ImageFormat; quality: number },
  hooks: RunningHooks,
): Promise<Drawn> {
  const { workers } = context;
  const marks = fileMarks(context, drawing);
  const failure = new AbortController();
  const { signal, release } = firstAborted(hooks.signal, failure.signal);
  let encode_file = 0;
  const encode = async (image: RgbImage, seed: bigint, marks: FileMarks | undefined): Promise<ImageFile> => {
    const { width, height } = image;
    const began = performance.now();
    const bytes = await workers.encodeImage(image, { format, quality, text: texts(context, drawing, seed), marks });
    encode_file += performance.now() - began;
    return { bytes, format, width, height, seed: Number(seed), marks: markNames(marks) };
  };
  const pending: Promise<void>[] = [];
  const keep = (work: Promise<void>) => {
    pending.push(work);
    work.catch((error) => failure.abort(error));
  };
  try {
    const engine = await generateInTurns(context, drawing.request, {
      turn: hooks.turn,
      signal,
      onProgress: stepWatcher(hooks),
      onImage: (image, index) => keep(encode(image, image.seed, marks).then((file) => hooks.onImage?.(file, index))),
      onPartialImage: async (image, { image: i, index }) => {
        const file = await encode(image, imageSeed(drawing.request.seed, i), unsigned(marks));
        hooks.onPartial?.(file, { image: i, index });
      },
    });
    await Promise.all(pending);
    return { engine, encode_file };
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
  hooks: RunningHooks,
): Promise<Drawn> {
  const { workers, store } = context;
  const { width, height } = drawing.request;
  const path = store.temporaryPath("mp4");
  const marks = fileMarks(context, drawing);
  const writer = await workers.openVideo({ path, width, height, framesPerSecond, marks });
  let encode_file = 0;
  const timed = async (work: Promise<void>) => {
    const began = performance.now();
    await work;
    encode_file += performance.now() - began;
  };
  try {
    const engine = await generateInTurns(context, drawing.request, {
      turn: hooks.turn,
      signal: hooks.signal,
      onProgress: stepWatcher(hooks),
      onImage: (frame) => timed(writer.write(frame)),
    });
    await timed(writer.finish());
    await hooks.onVideo?.(path, markNames(marks));
    return { engine, encode_file };
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

type TurnHooks = Pick<ProcessHooks, "onImage" | "onPartialImage"> & {
  turn: Turn;
  signal: AbortSignal;
  onProgress: (event: ProgressEvent) => void;
};

/**
 * Generates a request's images or frames one after the other, and lets others in between two of them: then the engine
 * drops what it has begun of the next one, and goes on from there later. What it gives is the same.
 */
async function generateInTurns(
  { engine, metrics }: DrawingContext,
  request: JudgedRequest,
  hooks: TurnHooks,
): Promise<EngineTimings> {
  const { turn, signal } = hooks;
  const total: EngineTimings = { prompt_ms: 0, references_ms: 0, denoise_ms: 0, decode_ms: 0 };
  for (let firstImage = 0; firstImage < request.numImages; ) {
    const clock = stageClock();
    const putOff = new AbortController();
    const either = firstAborted(signal, putOff.signal);
    const isPutOff = () => putOff.signal.aborted;
    let taking = Promise.resolve();
    try {
      const { timings } = await engine.generate(
        { ...request, firstImage },
        {
          signal: either.signal,
          // Of an image that is dropped nothing is told: it comes again.
          onProgress: (event) => {
            if (isPutOff()) return;
            clock.see(event);
            hooks.onProgress(event);
          },
          onPartialImage: (image, at) => (isPutOff() ? undefined : hooks.onPartialImage?.(image, at)),
          onImage: (image, index) => {
            metrics.images.inc();
            firstImage = index + 1;
            if (firstImage < request.numImages && turn.isWanted()) putOff.abort();
            taking = Promise.resolve(hooks.onImage(image, index));
            return taking;
          },
        },
      );
      add(total, timings);
      return total;
    } catch (error) {
      const isCancelled = error instanceof DaybreakError && error.code === "request.cancelled";
      if (!isCancelled || !isPutOff() || signal.aborted) throw error;
    } finally {
      either.release();
    }
    add(total, clock.timings);
    await taking;
    await turn.pass();
  }
  return total;
}

/** What the stages of a run take that never tells, because it is ended: the time from one report of progress to the next. */
function stageClock() {
  const timings: EngineTimings = { prompt_ms: 0, references_ms: 0, denoise_ms: 0, decode_ms: 0 };
  const names = {
    prompt: "prompt_ms",
    references: "references_ms",
    denoise: "denoise_ms",
    decode: "decode_ms",
  } as const;
  let since: number | undefined;
  const see = ({ stage }: ProgressEvent) => {
    const now = performance.now();
    if (since !== undefined && stage in names) timings[names[stage as keyof typeof names]] += now - since;
    since = now;
  };
  return { timings, see };
}

function add(total: EngineTimings, part: EngineTimings): void {
  for (const name of Object.keys(total) as (keyof EngineTimings)[]) total[name] += part[name];
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

function fileMarks({ options }: DrawingContext, { references, output }: Drawing) {
  const files = references.map(({ bytes }) => bytes);
  return marksOf(options.marking, files, output.type === "video");
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
