// Dawn in Node: the only file that imports `webgpu`, and only when the caller hands in no GPU of its own.
// Dawn's bindings have traps that are handled here and nowhere else: the object that create() returns must stay
// referenced for ever, waiting polls with setImmediate and burns a core, and unknown toggles are ignored silently.
// Drivers are looked for once, at an instance's first requestAdapter; Dawn prints what it thinks of them to the process's
// stderr (two lines "… artificially reduced from …" for most drivers), and no option or toggle of 0.6 stops it.

import { DaybreakError } from "../errors.js";
import { firstLine, isNotInstalled } from "../missing-package.js";
import { type Backend, checkedBackend, preferMatrixUnits } from "./backends.js";
import { packageManifest } from "./package.js";
import { deniedByRuntime } from "./runtime.js";
import { forgetEmptyChoices, type SoftwareDriver, softwareDriver } from "./software-driver.js";
import { checkDrawingLimits } from "./system-limits.js";

/** The Dawn instances made so far; a collected one crashes the process at its next asynchronous call. */
const instances: GPU[] = [];

/**
 * Toggles of every instance: no zeroing of workgroup memory that kernels write before they read it; subgroup matrices,
 * which Dawn counts among the unsafe interfaces until they are standardised; f16 on NVIDIA drivers before 615.71.
 */
const defaultToggles = ["disable_workgroup_init", "allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"];

/** All of Dawn that decides how kernels run: its version, the toggles of every instance, and the backend if one was chosen. */
export function dawnFacts(): string[] {
  return [`webgpu ${packageManifest().dependencies.webgpu}`, ...defaultToggles, ...backendOptions(activeBackend)];
}

let activeDriver: SoftwareDriver | null = null;
let activeBackend: Backend | undefined;

export type CreateGpuOptions = {
  /** More Dawn toggles to enable, for measuring and debugging. */
  toggles?: string[];
  /** Default: what the variable DAYBREAK_BACKEND says, else Dawn's choice, on Windows see {@link preferMatrixUnits}. */
  backend?: Backend;
};

/**
 * Makes Dawn's GPU object: the entry to WebGPU as a page's `navigator.gpu` is. Where the machine's own drivers give no
 * adapter, the software driver that set-up provided is taken; call it on the main thread first, a worker cannot do that.
 * Errors: `device.dawn_missing` if Dawn does not load here, `device.no_adapter` if the provided driver is damaged;
 * `request.option_invalid` for a backend that does not exist on this system; `system.limit_too_low`. A machine without any
 * driver gives a GPU whose `requestAdapter()` resolves to null.
 */
export async function createGpu(options: CreateGpuOptions = {}): Promise<GPU> {
  return createGpuBeside(softwareDriver(), options);
}

/** {@link createGpu} with this software driver, which another may have provided; null: only the machine's own. */
export async function createGpuBeside(
  driver: SoftwareDriver | null,
  { toggles = [], backend }: CreateGpuOptions = {},
): Promise<GPU> {
  const asked = checkedBackend(backend);
  checkDrawingLimits();
  const { create } = await importDawn();
  throttlePolling();
  forgetEmptyChoices();
  const features = `enable-dawn-features=${[...defaultToggles, ...toggles].join(",")}`;
  const newInstance = (taken = asked): GPU => {
    const gpu = create([features, ...backendOptions(taken)]) as GPU;
    instances.push(gpu);
    activeBackend = taken;
    return gpu;
  };
  if (process.platform === "win32" && !asked) return preferMatrixUnits(newInstance);
  if (driver?.needed) useDriver(driver);
  const gpu = newInstance();
  if (!driver || driver.needed || (await gpu.requestAdapter())) return gpu;
  // The machine has changed since set-up looked. An instance keeps what it found, so the driver needs another one.
  useDriver(driver);
  return newInstance();
}

/** What Dawn's `create` takes. */
function backendOptions(backend: Backend | undefined): string[] {
  return backend ? [`backend=${backend}`] : [];
}

/** The backend that was chosen instead of leaving it to Dawn, if one was. */
export function chosenBackend(): Backend | undefined {
  return activeBackend;
}

/** The folder of the provided software driver, if this process uses it, else null: the machine's own drivers answer. */
export function providedDriverFolder(): string | null {
  return activeDriver?.folder ?? null;
}

function useDriver(driver: SoftwareDriver): void {
  driver.activate();
  activeDriver = driver;
}

async function importDawn(): Promise<typeof import("webgpu")> {
  try {
    return await import("webgpu");
  } catch (cause) {
    const denied = deniedByRuntime(cause);
    if (denied) throw denied;
    throw new DaybreakError("device.dawn_missing", `the package webgpu (Dawn) ${loadFailure(cause)}`, { cause });
  }
}

const bringOwn = "hand in a GPU of your own";

/** How the package failed to load, and what to do about that. */
function loadFailure(cause: unknown): string {
  if (isNotInstalled(cause, "webgpu")) return `is not installed: run "npm install", or ${bringOwn}`;
  const here = `${process.platform}-${process.arch}`;
  if (!/^(linux|darwin|win32)-(x64|arm64)$/.test(here)) {
    return `has no binary for ${here}, only for Linux, macOS and Windows on x64 and arm64: take one of those, or ${bringOwn}`;
  }
  const reason = firstLine(cause);
  if (process.platform === "linux" && !hasGlibc()) {
    return `needs the GNU C library, which this system has not (Alpine has musl): take a system with it, such as the image node:22-slim, or ${bringOwn} (${reason})`;
  }
  if (/GLIBC(XX)?_/.test(reason)) return `needs a newer system: ${reason}`;
  // what npm has a record of it does not install again
  const again = 'delete that package\'s folder and run "npm install"';
  return `does not load on ${here}, because its binary is missing or damaged: ${again}, or ${bringOwn} (${reason})`;
}

function hasGlibc(): boolean {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime !== undefined;
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
