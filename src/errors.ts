// The one error type for operating errors and the only list of their codes.
// Programmer errors are plain assertions ("got … expected …"); everything a user, a file or a device can cause
// is a DaybreakError, whose message says what was got, what was expected and what to do.

/** Every code an operating error can carry. The first word names the room where the error arose. */
export const errorCodes = [
  // the checkpoint folder and its config files
  "model.not_found", // the folder (or address) holds no checkpoint
  "model.part_missing", // a component folder or file is missing
  "model.lfs_pointer", // a clone without Git LFS: the file itself was not fetched
  "model.hash_mismatch", // a file is not the one that was published
  "model.hash_unknown", // nothing says what the files should be
  "model.config_invalid", // a config file is no JSON, lacks a field, or has an absurd value
  "model.architecture_unsupported", // the checkpoint is of another architecture
  "model.tokenizer_invalid",
  // safetensors files
  "safetensors.truncated",
  "safetensors.header_too_large",
  "safetensors.header_invalid",
  "safetensors.index_invalid",
  "safetensors.shard_missing",
  "safetensors.shard_outside_folder",
  // the tensors in them
  "weights.tensor_missing",
  "weights.tensor_unknown",
  "weights.shape_mismatch",
  "weights.dtype_unsupported",
  "weights.non_finite", // NaN or infinities in a tensor
  "weights.all_zero", // a matrix of nothing but zeros
  "weights.changed", // the files are not what they were when they were first read
  // what a caller asks for
  "request.size_invalid",
  "request.steps_invalid",
  "request.seed_invalid",
  "request.guidance_invalid",
  "request.num_images_invalid",
  "request.prompt_invalid", // lone surrogates, not a string
  "request.prompt_too_long",
  "request.latents_invalid",
  "request.walk_invalid",
  "request.partial_images_invalid",
  "request.option_invalid",
  "request.cancelled",
  // reference images
  "reference.not_an_image",
  "reference.format_unsupported", // a real image, but its decoder is not installed
  "reference.truncated",
  "reference.damaged", // an image file whose contents contradict its format: checksums, sizes, compressed data
  "reference.too_small",
  "reference.aspect_ratio",
  "reference.too_large",
  "reference.too_many",
  // benchmarks
  "bench.compilers_missing", // the GPUs' compilers are not here and cannot be fetched, or there is nothing to build their stub
  // files written
  "output.unwritable",
  "output.format_unsupported",
  // the asset store
  "media.too_large", // one asset above the whole budget
  "media.storage_full", // the disk or a quota
  "media.unwritable", // any other failure of writing
  "media.folder_in_use", // by another server
  "media.not_found", // deleted, evicted, expired
  "media.damaged", // the disk holds other bytes than were stored
  "media.closed", // the store, or the workers
  // encoding pictures and videos
  "media.encoder_missing",
  "media.encoder_failed",
  // what says of files that a machine made them
  "marks.credentials_invalid", // certificates or key with which nothing can be signed
  "marks.unavailable", // what writes them is not installed
  "marks.failed",
  // the device
  "device.no_adapter",
  "device.dawn_missing", // the package that brings WebGPU to Node is absent, or has nothing that runs on this system
  "device.null_backend",
  "device.feature_missing",
  "device.limit_exceeded",
  "device.out_of_memory",
  "device.memory_budget_exceeded",
  "device.lost",
  "device.error", // an uncaptured validation or internal error of the device
  // what was computed
  "numerics.non_finite",
  "numerics.collapsed",
  "numerics.exploded",
  // the server
  "server.option_invalid",
  "server.address_in_use",
  "server.address_invalid", // no such host or interface, or no right to that port
  "server.listener_unavailable", // its native module does not load here
  "server.too_few_files", // that the system lets this process open
  // the system that all runs on
  "system.limit_too_low", // of memory, addresses, processes: what this process may take
  // the engine's own life
  "engine.closed",
  "engine.unavailable", // it cannot be started, for the reason that is the cause
  "engine.crashed", // the process that the engine ran in ended or went silent, and is replaced
  "engine.internal", // a defect of this program: an assertion failed, or something threw what nobody foresaw
  "file.unreadable",
  // what runs this program, and how it was packed
  "runtime.denied", // by Node's permissions, or Deno's
  "runtime.files_missing", // a bundle that left this package's files behind
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** An operating error: bad input, a bad file, a device that failed. */
export class DaybreakError extends Error {
  readonly code: ErrorCode;
  /** The member of a request that is at fault, where the code alone does not tell. */
  readonly field: string | undefined;

  /**
   * @param code one of {@link errorCodes}
   * @param message what was got, what was expected, what to do; one line
   * @param options `cause`: the error underneath, if any; `field`: see {@link field}
   */
  constructor(code: ErrorCode, message: string, options: { cause?: unknown; field?: string } = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.name = "DaybreakError";
    this.code = code;
    this.field = options.field;
  }
}

/** Throws `request.cancelled` if the caller has aborted; the reason is the cause. */
export function throwIfAborted(signal: AbortSignal | undefined, what = "the request"): void {
  if (signal?.aborted) throw requestCancelled(signal.reason, what);
}

/** What `what` fails with whose caller has given it up, for this reason. */
export function requestCancelled(cause: unknown, what = "the request"): DaybreakError {
  return new DaybreakError("request.cancelled", `${what} was cancelled`, { cause });
}

/** What is asked of an engine, or of its device, that was closed. */
export function engineClosed(): DaybreakError {
  return new DaybreakError("engine.closed", "the engine was closed; open it anew");
}

/**
 * Waits for `work`, but no longer than until `signal` is aborted; the work goes on, and nobody hears of its end.
 * Errors: the work's; when aborted what `error` makes of the signal's reason.
 */
export async function unlessAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  error: (reason: unknown) => Error,
): Promise<T> {
  if (!signal) return work;
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(error(signal.reason));
  });
  signal.addEventListener("abort", stop);
  if (signal.aborted) stop();
  try {
    return await Promise.race([aborted, work]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** An error as it crosses to another thread or process. */
export type PlainError = { code: string; message: string };

/** What of an error crosses; one that is no DaybreakError becomes `engine.internal`, its message without a stack. */
export function plainError(error: unknown): PlainError {
  if (error instanceof DaybreakError) return { code: error.code, message: error.message };
  return {
    code: "engine.internal",
    message: error instanceof Error ? `${error.name}: ${error.message}` : String(error),
  };
}

/** The error that {@link plainError} described; a code that is not in the list becomes `engine.internal`. */
export function errorFromPlain({ code, message }: PlainError): DaybreakError {
  return new DaybreakError(errorCodes.find((known) => known === code) ?? "engine.internal", message);
}

/**
 * Throws an AssertionError-like TypeError for programmer errors; `message` states got and expected. Where a check runs
 * for every dispatch, a function spares the making of messages that nobody reads.
 */
export function assert(condition: unknown, message: string | (() => string)): asserts condition {
  if (!condition) throw new TypeError(`assertion failed: ${typeof message === "string" ? message : message()}`);
}
