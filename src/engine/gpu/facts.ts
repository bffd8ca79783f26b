// All that recording needs to know of a device: limits, features, matrix units, choices of kernels. Plain data, so that
// work can be recorded, and its memory planned, on any CPU; a Device has all of it, too. Owns the limits by which work
// is cut.

/** Limits by which the engine cuts its work; smaller values than the adapter's can be asked for to test that. */
export type DeviceLimits = {
  /** Largest range of a storage buffer that one binding may cover, bytes. */
  bindingBytes: number;
  /** Largest buffer, bytes. */
  bufferBytes: number;
  /** FLOPs that one dispatch should not exceed, so that it stays under about 100 ms (watchdogs). */
  dispatchFlops: number;
  /** Bytes that one dispatch should not move, for the same reason. */
  dispatchBytes: number;
  /** FLOPs and bytes that one submission should not exceed, so that it stays under about 500 ms. */
  submissionFlops: number;
  submissionBytes: number;
  /**
   * Rows from which products of f16 operands go to matrix units, where the device has some; infinite on processors, whose
   * drivers only imitate them, and 1 to test them there.
   */
  matrixRows: number;
};

/** What matrix units multiply at once, [M, K]·[K, N], and WGSL's types of the operands and of the sum: "f16", "f32". */
export type MatrixConfig = { M: number; N: number; K: number; componentType: string; resultComponentType: string };

/** Workload, by `choiceKey` or name → name of the variant that was measured to be the fastest; see ops/variants.ts. */
export type Tuning = ReadonlyMap<string, string>;

export type DeviceFacts = {
  readonly features: ReadonlySet<string>;
  readonly limits: Readonly<DeviceLimits>;
  /** True for adapters that run on the CPU (lavapipe, SwiftShader, WARP). */
  readonly isSoftware: boolean;
  /** Lanes of a subgroup where that is one known number, else 0. */
  readonly subgroupSize: number;
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  /** What the matrix units compute; none where shaders cannot reach them, or they are wrong. */
  readonly matrixConfigs: readonly MatrixConfig[];
  /** Memory and invocations that a workgroup may have. */
  readonly workgroupBytes: number;
  readonly workgroupInvocations: number;
  /** Measured choices of kernels. */
  readonly tuning: Tuning;
};

/** Bytes of the buffer that holds so many: a multiple of 16, and never none. */
export function bufferSize(bytes: number): number {
  return Math.max(16, Math.ceil(bytes / 16) * 16);
}

/** Whether kernels take such matrices: sums in f16 lose too much. */
export function isUsable({ componentType, resultComponentType }: MatrixConfig): boolean {
  return componentType === "f16" && resultComponentType === "f32";
}

/** Whether kernels may use matrix units: there are some that compute what they need. */
export function usesMatrices({ limits, matrixConfigs }: Pick<DeviceFacts, "limits" | "matrixConfigs">): boolean {
  return Number.isFinite(limits.matrixRows) && matrixConfigs.some(isUsable);
}

/** How fast work is assumed to be done when it is cut. */
export type WorkRates = { flopsPerSecond: number; bytesPerSecond: number };

/**
 * What adapters do, roughly, until it is measured, see device/trial.ts: processors without the kernels that need
 * subgroups and with them, and small GPUs.
 */
export const assumedRates = {
  software: { flopsPerSecond: 5e9, bytesPerSecond: 4e9 },
  softwareSubgroups: { flopsPerSecond: 2e10, bytesPerSecond: 4e9 },
  smallGpu: { flopsPerSecond: 5e11, bytesPerSecond: 4e10 },
} as const satisfies Record<string, WorkRates>;

/** The limits by which work is cut: 100 ms a dispatch, 500 ms a submission. */
export function workLimits({ flopsPerSecond, bytesPerSecond }: WorkRates) {
  return {
    dispatchFlops: 0.1 * flopsPerSecond,
    dispatchBytes: 0.1 * bytesPerSecond,
    submissionFlops: 0.5 * flopsPerSecond,
    submissionBytes: 0.5 * bytesPerSecond,
  };
}

/** A shorter time says more about the clock, which is coarse in pages, than about the device. */
const leastTime_ms = 0.1;
/** Other kernels may be so many times as slow as the one that is timed, and still keep within the limits. */
const margin = 4;

/** Work a second by which work is cut: a power of two, so that it is cut the same way though times differ a little. */
export function steadyRate(work: number, ms: number): number {
  const measured = work / (Math.max(ms, leastTime_ms) / 1000);
  return 2 ** Math.floor(Math.log2(measured / margin));
}

/** An ordinary GPU, as far as planning sees one. */
export const ordinaryGpu: DeviceFacts = {
  features: new Set(),
  limits: {
    // The binding limit of most desktop drivers; cutting changes no size by more than a few hundred bytes.
    bindingBytes: 2 ** 31 - 4,
    // NVIDIA's; others end between 2 GiB and here, or far above.
    bufferBytes: 2 ** 32 - 2 ** 21,
    ...workLimits(assumedRates.smallGpu),
    matrixRows: Number.POSITIVE_INFINITY,
  },
  isSoftware: false,
  // Unknown, as WebGPU reports it.
  ...{ subgroupSize: 0, subgroupMinSize: 4, subgroupMaxSize: 128 },
  matrixConfigs: [],
  // What every device of WebGPU has.
  ...{ workgroupBytes: 16 * 1024, workgroupInvocations: 256 },
  tuning: new Map(),
};
