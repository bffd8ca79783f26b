// Dawn in Node: the only file that imports `webgpu`, and only when the caller hands in no GPU of its own.
// Dawn's bindings have three traps that are handled here and nowhere else: the object that create() returns must stay
// referenced for ever, waiting polls with setImmediate and burns a core, and unknown toggles are ignored silently.

/** The Dawn instances made so far; a collected one crashes the process at its next asynchronous call. */
const instances: GPU[] = [];

export type CreateGpuOptions = {
  /** Dawn toggles to enable, for measuring and debugging. */
  toggles?: string[];
};

/** Makes Dawn's GPU object: the entry to WebGPU as a page's `navigator.gpu` is. */
export async function createGpu({ toggles = [] }: CreateGpuOptions = {}): Promise<GPU> {
  const { create } = await import("webgpu");
  throttlePolling();
  const enabled = ["disable_workgroup_init", ...toggles];
  const gpu = create([`enable-dawn-features=${enabled.join(",")}`]) as GPU;
  instances.push(gpu);
  return gpu;
}

/** How long Dawn sleeps between polls. A step takes tens of milliseconds or more, a poll some microseconds. */
const pollInterval_ms = 1;
let isThrottled = false;

/**
 * Dawn polls for completion by calling the global setImmediate with a native function over and over, which keeps a core
 * busy that a software device needs itself. Native callbacks are put on a timer instead; everything else is untouched.
 */
function throttlePolling(): void {
  if (isThrottled) return;
  isThrottled = true;
  const immediate = globalThis.setImmediate;
  const isNative = (f: unknown) => Function.prototype.toString.call(f) === "function () { [native code] }";
  const throttled = (callback: (...args: unknown[]) => void, ...args: unknown[]) =>
    isNative(callback) ? setTimeout(callback, pollInterval_ms, ...args) : immediate(callback, ...args);
  globalThis.setImmediate = Object.assign(throttled, immediate) as unknown as typeof setImmediate;
}
