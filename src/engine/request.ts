// What a caller asks of the engine and what it gets back: plain data, no GPU.
// Owns the limits on a request; `engine.ts` checks every request against them before any work starts.

/** Longest prompt, chat template included, in tokens: the sequence that FLUX.2 [klein] was trained with. */
export const maxPromptTokens = 512;
/** Sides are multiples of this many pixels (8× VAE, 2× patchify). */
export const sizeMultiple = 16;
export const maxSide = 4096;
export const maxPixels = 4 * 1024 * 1024;
export const maxSteps = 1000;
export const maxNumImages = 64;
export const maxReferences = 16;

/** Pixels, row-major from the top left: `data` is [height, width, 3], 8-bit sRGB. */
export type RgbImage = { width: number; height: number; data: Uint8Array };

/** The engine's arithmetic: `f32` runs anywhere; `f16` packs operands (never accumulators or residuals) into 16 bits. */
export type Precision = "auto" | "f32" | "f16";

export type GenerateRequest = {
  /** Any text, also empty; together with the chat template at most {@link maxPromptTokens} tokens. */
  prompt: string;
  /** What the second pass of classifier-free guidance is given; default "". */
  negativePrompt?: string;
  /** Pixels, a multiple of 16. Default: the first reference's, else the checkpoint's `sample_size`. */
  width?: number;
  height?: number;
  /** Denoising steps; default 4 for a distilled checkpoint, 50 otherwise. */
  steps?: number;
  /** 0 ≤ seed < 2⁶⁴; image i uses seed + i mod 2⁶⁴. Default: drawn at random. */
  seed?: bigint;
  /** Guidance scale; > 1 runs the negative prompt as well, on checkpoints that are not distilled. Default 4.0 there. */
  guidance?: number;
  /** Default 1. */
  numImages?: number;
  /** Images to edit or to take things from. */
  references?: RgbImage[];
  /** Explicit starting noise, [1, C, h, w] row-major, instead of the seed's; with numImages 1 only. */
  latents?: { shape: number[]; data: Float32Array };
  /** Honoured at step boundaries. */
  signal?: AbortSignal;
  onProgress?: (event: ProgressEvent) => void;
  /** Receives what the stages computed, under the names of reference traces; `detail` adds the inner tensors. */
  trace?: TraceSink;
};

export type TraceTensor = { dtype: "F32" | "I32" | "U8"; shape: number[]; data: Float32Array | Int32Array | Uint8Array };
export type TraceSink = { detail: boolean; write: (name: string, tensor: TraceTensor) => void };

/** The stages of one request, in the order of the main path. */
export type Stage = "load" | "prompt" | "references" | "denoise" | "decode";

/** `done` of `total` units of `stage` are complete: bytes while loading, steps while denoising, 0 or 1 otherwise. */
export type ProgressEvent = { stage: Stage; done: number; total: number; image: number; numImages: number };

/** Milliseconds spent in each stage, and from the call to the result. */
export type Timings = { prompt_ms: number; references_ms: number; denoise_ms: number; decode_ms: number; total_ms: number };

export type GeneratedImage = RgbImage & { seed: bigint };

/** `timings` are for the whole request, all images together; `warnings` are for a person to read. */
export type GenerateResult = { images: GeneratedImage[]; timings: Timings; warnings: string[] };
