// Signals made of signals. `AbortSignal.any` and `AbortSignal.timeout` are not used in this program: what they make is held
// weakly, so that a collection of memory can take a time limit away and leave its work waiting for ever. Here every source
// holds what depends on it, until the caller lets go; timers are the caller's own.

/** A signal that hangs on others. */
export type LinkedSignal = {
  signal: AbortSignal;
  /** Lets go of the sources, which may live longer; the signal stays as it is. */
  release(): void;
};

/** Aborted with the reason of whichever of the signals is aborted first, also before this call. */
export function firstAborted(...sources: readonly AbortSignal[]): LinkedSignal {
  const controller = new AbortController();
  const listeners = sources.map((source) => ({ source, listener: () => controller.abort(source.reason) }));
  for (const { source, listener } of listeners) {
    source.addEventListener("abort", listener);
    if (source.aborted) listener();
  }
  return {
    signal: controller.signal,
    release: () => {
      for (const { source, listener } of listeners) source.removeEventListener("abort", listener);
    },
  };
}
