// Owns the GPUDevice: how it is requested, what it can do, and what happens when it fails.
// Knows no kernel and no model. The GPU object is handed in: a page's navigator.gpu, or Dawn's.
// WebGPU reports most errors outside of the call that caused them; `Device.check()` brings them back to the work.

import { DaybreakError, engineClosed } from "../../errors.js";
import {
  assumedRates,
  bufferSize,
  type DeviceFacts,
  type DeviceLimits,
  isUsable,
  type MatrixConfig,
  type Tuning,
  workLimits,
} from "./facts.js";
import { bufferUsage, mapMode } from "./usage.js";

/** The adapter limits that decide how work is cut; reports show them. */
export const shownLimits = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBuffersPerShaderStage",
  "minStorageBufferOffsetAlignment",
] as const;

/** Dawn's name, as long as subgroup matrices are not standardised. */
const matrixFeature = "chromium-experimental-subgroup-matrix";
const matrixNeeds = ["shader-f16", "subgroups", "subgroup-size-control"];

/** Features that kernels may use where the adapter has them, each with those that its kernels need besides. */
const usefulFeatures: readonly [feature: string, needs: readonly string[]][] = [
  ["shader-f16", []],
  ["subgroups", []],
  ["subgroup-size-control", ["subgroups"]],
  ["timestamp-query", []],
  [matrixFeature, matrixNeeds],
];

/** Below this a product is bound by reading its weight. */
const gpuMatrixRows = 16;

export type OpenDeviceOptions = {
  gpu: GPU;
  limits?: Partial<DeviceLimits>;
  /** Measured choices of kernels; without them the built-in ones are taken. */
  tuning?: Tuning;
  /** Opens the device without these features, as a smaller one is (tests). */
  withoutFeatures?: string[];
};

/** A GPU device: what it can do, the limits by which work is cut, and the error that ended it, if one did. */
export class Device implements DeviceFacts {
  readonly gpu: GPUDevice;
  readonly info: GPUAdapterInfo;
  readonly features: ReadonlySet<string>;
  readonly limits: DeviceLimits;
  readonly isSoftware: boolean;
  readonly subgroupSize: number;
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  readonly workgroupBytes: number;
  readonly workgroupInvocations: number;
  readonly tuning: Tuning;
  matrixConfigs: readonly MatrixConfig[];
  /** Which kernels were found to be wrong on matrix units, and why; those matrices are not used. */
  matrixFault: string | undefined;
  /** Whether work is cut by the device's own speed, see device/trial.ts, and not by an assumed one. */
  isMeasured = false;
  /** Bytes of all buffers made through {@link createBuffer} and not destroyed. */
  allocatedBytes = 0;
  /** The most that {@link allocatedBytes} ever was. */
  peakBytes = 0;
  /** How many buffers were ever made; the step loop must not raise it. */
  allocations = 0;

  #failure: DaybreakError | undefined;
  #closed = false;
  #onFailure = new Set<(error: DaybreakError) => void>();

  /** Use {@link openDevice}. */
  constructor(gpu: GPUDevice, info: GPUAdapterInfo, limits: DeviceLimits, isSoftware: boolean, tuning: Tuning) {
    this.gpu = gpu;
    this.info = info;
    this.features = new Set(gpu.features);
    this.limits = limits;
    this.tuning = tuning;
    this.isSoftware = isSoftware;
    this.workgroupBytes = gpu.limits.maxComputeWorkgroupStorageSize;
    this.workgroupInvocations = gpu.limits.maxComputeInvocationsPerWorkgroup;
    this.subgroupMinSize = info.subgroupMinSize;
    this.subgroupMaxSize = info.subgroupMaxSize;
    const isFixed = this.features.has("subgroups") && this.subgroupMinSize === this.subgroupMaxSize;
    this.subgroupSize = isFixed ? this.subgroupMinSize : 0;
    // Mesa's lavapipe lists 8 × 8 matrices for subgroups of 16 lanes too, and its compiler crashes on them.
    const hasMatrices = this.features.has(matrixFeature) && (!isSoftware || this.subgroupSize === 8);
    this.matrixConfigs = hasMatrices ? matrixConfigsOf(info) : [];
    gpu.lost.then((lost) => {
      if (!this.#closed) {
        const why = lost.message || lost.reason;
        this.fail(new DaybreakError("device.lost", `the GPU device was lost (${oneLine(why)}); open the engine anew`));
      }
    });
    gpu.onuncapturederror = (event) => {
      const code = event.error.constructor.name === "GPUOutOfMemoryError" ? "device.out_of_memory" : "device.error";
      this.fail(new DaybreakError(code, `the GPU device reported an error: ${oneLine(event.error.message)}`));
    };
  }

  /** The error that ended this device, if one did. */
  get failure(): DaybreakError | undefined {
    return this.#failure;
  }

  /** Throws the error that ended this device, if one did. After a device error nothing continues on the device. */
  check(): void {
    if (this.#failure) throw this.#failure;
    if (this.#closed) throw engineClosed();
  }

  /** Waits for `work`, but not longer than the device lives; then throws what ended the device, if anything did. */
  async settled<T>(work: Promise<T>): Promise<T> {
    // On a device that has failed already, work is rejected later, when nobody waits for it any more.
    work.catch(() => undefined);
    this.check();
    let stop: ((error: DaybreakError) => void) | undefined;
    const failed = new Promise<never>((_, reject) => {
      stop = reject;
      this.#onFailure.add(reject);
    });
    try {
      const result = await Promise.race([work, failed]);
      this.check();
      return result;
    } catch (error) {
      this.check();
      if (error instanceof DaybreakError) throw error;
      throw new DaybreakError("device.error", `the GPU device reported an error: ${reasonOf(error)}`, { cause: error });
    } finally {
      if (stop) this.#onFailure.delete(stop);
    }
  }

  /**
   * Runs `allocate`, which makes buffers for `what`. The device survives if it has no memory for them.
   * Errors: device.out_of_memory; those of `allocate`. The caller destroys what was made.
   */
  async allocating(what: string, allocate: () => void): Promise<void> {
    this.check();
    this.gpu.pushErrorScope("out-of-memory");
    let failure: GPUError | null = null;
    try {
      allocate();
    } finally {
      failure = await this.settled(this.gpu.popErrorScope());
    }
    if (!failure) return;
    throw new DaybreakError(
      "device.out_of_memory",
      `the device has no memory for ${what} (${oneLine(failure.message)}): close other programs or ask for a smaller picture`,
    );
  }

  /** Waits until everything submitted so far has run. */
  async idle(): Promise<void> {
    await this.settled(this.gpu.queue.onSubmittedWorkDone());
  }

  /**
   * Makes a buffer of at least `bytes`, rounded up to 16.
   * Throws device.limit_exceeded where the device has no buffers of that size.
   */
  createBuffer(label: string, bytes: number, usage: number): GPUBuffer {
    this.check();
    const size = bufferSize(bytes);
    if (size > this.limits.bufferBytes) {
      throw new DaybreakError(
        "device.limit_exceeded",
        `"${label}" needs a buffer of ${size} bytes, the device allows ${this.limits.bufferBytes}; ask for a smaller picture`,
      );
    }
    const buffer = this.gpu.createBuffer({ label, size, usage });
    this.allocatedBytes += size;
    this.peakBytes = Math.max(this.peakBytes, this.allocatedBytes);
    this.allocations += 1;
    return buffer;
  }

  /** Destroys a buffer made by {@link createBuffer}. */
  destroyBuffer(buffer: GPUBuffer): void {
    this.allocatedBytes -= buffer.size;
    buffer.destroy();
  }

  /** From now on kernels use no other matrices than these. */
  restrictMatrices(configs: readonly MatrixConfig[], fault: string | undefined): void {
    this.matrixConfigs = configs;
    this.matrixFault = fault;
  }

  /** Destroys the device and with it every buffer. */
  close(): void {
    this.#closed = true;
    this.gpu.destroy();
  }

  /** Ends the device's use with an error that every further {@link check} throws. */
  fail(error: unknown): void {
    this.#failure ??=
      error instanceof DaybreakError ? error : new DaybreakError("device.error", reasonOf(error), { cause: error });
    for (const reject of this.#onFailure) reject(this.#failure);
    this.#onFailure.clear();
  }
}

/**
 * Requests a device with all of the adapter's limits and the useful features, and proves that it computes.
 *
 * Errors: device.no_adapter, device.null_backend (a device that accepts everything and computes nothing), device.error,
 * device.lost.
 */
export async function openDevice(options: OpenDeviceOptions): Promise<Device> {
  const opened = await openUnproven(options);
  try {
    await probe(opened);
  } catch (error) {
    opened.close();
    throw error;
  }
  return opened;
}

/** {@link openDevice} without the proof: of a device that is there to compile and never to compute. */
export async function openUnproven(options: OpenDeviceOptions): Promise<Device> {
  const { gpu, limits, tuning = new Map(), withoutFeatures = [] } = options;
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new DaybreakError(
      "device.no_adapter",
      "no WebGPU adapter answered: install a Vulkan driver (Debian, Ubuntu: `daybreak setup` provides one), or see `daybreak doctor`",
    );
  }
  const isOffered = (feature: string) => adapter.features.has(feature) && !withoutFeatures.includes(feature);
  // Dawn would add what a feature needs, also where a test wants it left out.
  const requiredFeatures = usefulFeatures.filter(([name, needs]) => [name, ...needs].every(isOffered)).map(([f]) => f);
  const device = await requestDevice(adapter, requiredFeatures as GPUFeatureName[]);
  const isSoftware = isSoftwareAdapter(adapter.info);
  const { software, softwareSubgroups, smallGpu } = assumedRates;
  const softwareRates = requiredFeatures.includes("subgroups") ? softwareSubgroups : software;
  const cutting: DeviceLimits = {
    bindingBytes: adapter.limits.maxStorageBufferBindingSize,
    bufferBytes: adapter.limits.maxBufferSize,
    ...workLimits(isSoftware ? softwareRates : smallGpu),
    matrixRows: isSoftware ? Number.POSITIVE_INFINITY : gpuMatrixRows,
    ...limits,
  };
  return new Device(device, adapter.info, cutting, isSoftware, tuning);
}

async function requestDevice(adapter: GPUAdapter, requiredFeatures: GPUFeatureName[]): Promise<GPUDevice> {
  try {
    return await adapter.requestDevice({ requiredFeatures, requiredLimits: allLimits(adapter.limits) });
  } catch (cause) {
    throw new DaybreakError(
      "device.error",
      `${adapterName(adapter.info)} gave no device: ${reasonOf(cause)}; update its driver, or see \`daybreak doctor\``,
      { cause },
    );
  }
}

/** Every limit of the adapter, in the form that requestDevice takes. */
function allLimits(limits: GPUSupportedLimits): Record<string, number> {
  const all: Record<string, number> = {};
  // Limits are getters on the prototype, so Object.keys sees none of them.
  for (const name in limits) {
    const value = (limits as unknown as Record<string, unknown>)[name];
    // The subgroup sizes are listed among the limits by older implementations but cannot be asked for.
    if (typeof value === "number" && !/subgroup/i.test(name)) all[name] = value;
  }
  return all;
}

/** The adapter's matrix configurations as plain data; they come as objects of getters. */
export function matrixConfigsOf(info: GPUAdapterInfo): MatrixConfig[] {
  const { subgroupMatrixConfigs = [] } = info as { subgroupMatrixConfigs?: Iterable<MatrixConfig> };
  return [...subgroupMatrixConfigs].map(({ M, N, K, componentType, resultComponentType }) => {
    return { M, N, K, componentType, resultComponentType };
  });
}

/** Whether an adapter runs on the CPU. */
function isSoftwareAdapter({ description, device, architecture }: GPUAdapterInfo): boolean {
  return /llvmpipe|swiftshader|basic render|software/i.test(`${description} ${device} ${architecture}`);
}

/** Whether an adapter is a GPU on which shaders reach matrix units that kernels can use. */
export function reachesMatrixUnits({ features, info }: Pick<GPUAdapter, "features" | "info">): boolean {
  const hasFeatures = [matrixFeature, ...matrixNeeds].every((name) => features.has(name));
  return hasFeatures && !isSoftwareAdapter(info) && matrixConfigsOf(info).some(isUsable);
}

/** Runs one tiny kernel. Dawn's null backend accepts it, but leaves the result's memory as it happened to be. */
async function probe(device: Device): Promise<void> {
  const { gpu } = device;
  // A number that no earlier probe can have left in that memory.
  const term = crypto.getRandomValues(new Uint32Array(1))[0]! >>> 1;
  const code =
    "@group(0) @binding(0) var<storage, read_write> y: array<u32>;\n" +
    `@compute @workgroup_size(1) fn probe() { y[0] = ${term}u + arrayLength(&y); }`;
  const module = gpu.createShaderModule({ label: "probe", code });
  const layout = gpu.createBindGroupLayout({ entries: [{ binding: 0, visibility: 4, buffer: { type: "storage" } }] });
  const pipeline = gpu.createComputePipeline({
    layout: gpu.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "probe" },
  });
  const result = gpu.createBuffer({ size: 16, usage: bufferUsage.STORAGE | bufferUsage.COPY_SRC });
  const staging = gpu.createBuffer({ size: 16, usage: bufferUsage.MAP_READ | bufferUsage.COPY_DST });
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, gpu.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: result } }] }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(result, 0, staging, 0, 16);
  gpu.queue.submit([encoder.finish()]);
  await device.settled(staging.mapAsync(mapMode.READ));
  const value = new Uint32Array(staging.getMappedRange().slice(0))[0];
  staging.destroy();
  result.destroy();
  if (value === term + 4) return;
  throw new DaybreakError(
    "device.null_backend",
    `${adapterName(device.info)} computed ${value} instead of ${term + 4}: it is no real GPU; see \`daybreak doctor\``,
  );
}

function adapterName({ description, vendor }: GPUAdapterInfo): string {
  return description || vendor ? `the adapter "${description || vendor}"` : "the adapter";
}

/** What a rejected promise says. Browsers give some errors only a name and no message. */
export function reasonOf(error: unknown): string {
  return oneLine(error instanceof Error ? error.message || error.name : String(error));
}

export function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim().slice(0, 500);
}
